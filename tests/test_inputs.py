"""Whatever a caller hands in: the right result, or a ValueError or TypeError that says what is allowed."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistae import data, measures, sliders
from mnistae.config import Config, Transfer
from mnistae.training import build

numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 1, 2, 10**30, math.nan, math.inf, -math.inf, 1e-300])
)
others = st.one_of(st.none(), st.booleans(), st.text(max_size=5), st.lists(numbers, max_size=3))
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refusal(call):
    """What a ValueError or TypeError says; nothing if all went well. Any other exception is a fault."""
    try:
        call()
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


@quick
@given(st.sampled_from([field.name for field in fields(Config)]), st.one_of(numbers, others))
def test_any_value_in_any_field_of_a_config(field, value):
    said = refusal(lambda: Config(**{field: value}))
    if said:
        assert field in said
        assert " should " in said or "exceeded maximum size" in said, "beyond 64 bits no range is named"
    else:
        config = Config(**{field: value})
        assert hash(config) == hash(Config(**{field: value}))
        assert "/" not in config.name
        assert len(config.name) < 200, "a file system's limit is 255 bytes"


@quick
@given(st.sampled_from([field.name for field in fields(Transfer)]), st.one_of(numbers, others))
def test_any_value_in_any_field_of_a_transfer(field, value):
    whole = {"scheme": "frozen", "encoder": Config(), "labels_per_class": 1, "draw": 0, field: value}
    said = refusal(lambda: Transfer(**whole))
    assert not said or (" should " in said and field in said)


@quick
@given(
    st.integers(-1, 900),
    st.lists(st.one_of(st.integers(-1, 8), st.just(5_000)), max_size=7).map(tuple),
    st.one_of(st.integers(-2, 12), st.floats()),
)
def test_any_architecture_is_refused_or_works(latent_dim, channels, kernel_size):
    asked = {"latent_dim": latent_dim, "channels": channels, "kernel_size": kernel_size}
    said = refusal(lambda: Config(**asked))
    if said:
        assert any(field in said for field in asked)
    else:
        assert build(Config(**asked)).eval()(torch.rand(2, 1, 28, 28)).shape == (2, 1, 28, 28)


GOOD = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
BAD_IMAGES = {
    "bytes": (GOOD * 255).to(torch.uint8),
    "integers": torch.zeros(6, 1, 28, 28, dtype=torch.int64),
    "not divided by 255": GOOD * 255,
    "too bright": GOOD * 1.5,
    "negative": GOOD - 0.5,
    "NaN": torch.full_like(GOOD, math.nan),
    "empty": GOOD[:0],
    "one without its batch": GOOD[0],
    "flat": GOOD.flatten(1),
    "coloured": GOOD.repeat(1, 3, 1, 1),
    "a list": [[0.0]],
    "nothing": None,
}
TAKERS = {
    "mse": lambda x: measures.mse(x, x),
    "reconstruction_mse": lambda x: measures.reconstruction_mse(torch.nn.Identity(), x),
    "pca": lambda x: measures.pca(x, 2),
    "pca_errors": lambda x: measures.pca_errors(GOOD, x, (1,)),
    "nearest_mse, images": lambda x: measures.nearest_mse(x, GOOD),
    "nearest_mse, reference": lambda x: measures.nearest_mse(GOOD, x),
    "confidence": lambda x: measures.confidence(torch.nn.Flatten(), x),
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.mse(BAD_IMAGES["bytes"], GOOD), "^images are torch.uint8: allowed are"),
        (lambda: measures.mse(BAD_IMAGES["a list"], GOOD), "^images are list: allowed are"),
        (lambda: measures.mse(GOOD * 255, GOOD), "divide bytes by 255"),
        (lambda: measures.mse(GOOD, GOOD * 255), "divide bytes by 255"),
        (lambda: measures.pca(GOOD, 7), "n_components=7 must be between 0 and .*=6"),
        (lambda: measures.pca_errors(GOOD, GOOD, ()), r"latent_dims=\(\): allowed"),
        (lambda: measures.pca_errors(GOOD, GOOD, (3, -1)), r"latent_dims=\(3, -1\): allowed"),
        (lambda: measures.chance_level(1, 5), "n=1, d=5"),
        (lambda: measures.chance_level(100, 1), "n=100, d=1"),
        (lambda: measures.accuracy(torch.nn.Identity(), GOOD, torch.zeros(5)), "6 images and 5 labels"),
        (lambda: measures.accuracy(torch.nn.Identity(), GOOD[:0], torch.zeros(0)), "0 images and 0 labels"),
        (lambda: measures.intrinsic_dimension(torch.zeros(9, 3)), "n_samples_fit = 1"),
        (lambda: measures.intrinsic_dimension(torch.full((9, 3), math.nan)), "NaN"),
        (lambda: measures.interpolate(GOOD, GOOD, torch.tensor([2.0])), "from 0 to 1"),
        (lambda: data.balanced_draw(torch.arange(10), 2, 0), "per_class = 2: allowed is 1 to 1"),
        (lambda: sliders.alpha_slider({}), "pairs is empty: allowed"),
    ],
)
def test_what_cannot_be_done_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_extreme_configs_that_are_allowed_can_be_built():
    for extreme in (
        Config(latent_dim=784, channels=(1,), kernel_size=9),
        Config(latent_dim=1, channels=(1, 1, 1, 1, 1), seed=2**32 - 1),
    ):
        assert build(extreme).eval()(GOOD).shape == GOOD.shape
