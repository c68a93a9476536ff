"""Whatever a caller hands in: the right result, or a ValueError or TypeError that says what is allowed."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistae import measures
from mnistae.config import Config
from mnistae.training import build


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(-1, 900),
    st.lists(st.one_of(st.integers(-1, 8), st.just(5_000)), max_size=7).map(tuple),
    st.one_of(st.integers(-2, 12), st.floats()),
)
def test_any_architecture_is_refused_or_works(latent_dim, channels, kernel_size):
    try:
        config = Config(latent_dim, channels, kernel_size)
    except ValueError:
        return
    assert build(config).eval()(GOOD).shape == GOOD.shape


GOOD = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
BAD_IMAGES = {
    "bytes": (GOOD * 255).to(torch.uint8),
    "not divided by 255": GOOD * 255,
    "negative": GOOD - 0.5,
    "NaN": torch.full_like(GOOD, math.nan),
    "empty": GOOD[:0],
    "one without its batch": GOOD[0],
    "flat": GOOD.flatten(1),
    "coloured": GOOD.repeat(1, 3, 1, 1),
    "a list": [[0.0]],
}
TAKERS = {
    "mse": lambda x: measures.mse(x, x),
    "reconstruction_mse": lambda x: measures.reconstruction_mse(torch.nn.Identity(), x),
    "pca": lambda x: measures.pca(x, 2),
    "pca_errors": lambda x: measures.pca_errors(GOOD, x, (1,)),
    "nearest_mse, images": lambda x: measures.nearest_mse(x, GOOD),
    "nearest_mse, reference": lambda x: measures.nearest_mse(GOOD, x),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("fault", BAD_IMAGES)
def test_bad_images_are_refused_with_what_is_allowed(taker, fault):
    with pytest.raises((ValueError, TypeError), match="allowed") as caught:
        TAKERS[taker](BAD_IMAGES[fault])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("taker", [name for name in TAKERS if name != "pca"])  # which needs two
def test_one_image_is_enough(taker):
    TAKERS[taker](GOOD[:1])


def paths(*alphas):
    return measures.interpolate(GOOD, GOOD, torch.tensor(alphas))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.mse(BAD_IMAGES["bytes"], GOOD), "^images are torch.uint8: allowed are"),
        (lambda: measures.mse(GOOD, GOOD * 255), "divide bytes by 255"),
        (lambda: measures.mse(GOOD, GOOD[:1]), "allowed are equal ones"),
        (lambda: measures.pca_errors(GOOD, GOOD, ()), r"latent_dims=\(\): allowed"),
        (lambda: measures.pca_errors(GOOD, GOOD, (3, -1)), r"latent_dims=\(3, -1\): allowed"),
        (lambda: measures.correlation_summary(torch.full((10, 3), math.nan)), "contains NaN"),
        (lambda: measures.correlation_summary(torch.ones(10, 3)), "0 live coordinates: .* needs at least 2"),
        (lambda: measures.accuracy(torch.nn.Identity(), GOOD, torch.zeros(5)), "6 images and 5 labels"),
        (lambda: measures.accuracy(torch.nn.Identity(), GOOD[:0], torch.zeros(0)), "0 images and 0 labels"),
        (lambda: measures.interpolate(GOOD, GOOD[:1], torch.tensor([0.5])), "allowed are equal ones"),
        (lambda: paths(2.0), "from 0 to 1"),
        (lambda: paths(0.5, math.nan), "from 0 to 1"),
    ],
)
def test_what_cannot_be_done_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_extreme_configs_that_are_allowed_can_be_built_and_named():
    for extreme in (Config(784, (1,), 9), Config(1, (1, 1, 1, 1, 1), seed=2**32 - 1)):
        assert build(extreme).eval()(GOOD).shape == GOOD.shape
    rates = dict.fromkeys(("learning_rate", "weight_decay", "distortion", "kl_weight"), 0.12345678901234567)
    longest = Config(784, (4096,) * 5, 9, optimizer="adamw", batch_size=60_000, epochs=10_000, **rates)
    assert len(f"{longest.name}.safetensors") < 200, "a file system's limit is 255 bytes"
