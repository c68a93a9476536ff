"""What an experiment may be, and the name under which it is found."""

import re
from dataclasses import fields, replace

import pytest
from small import TINY

from mnistae.config import Config, Probe, Transfer


def test_a_config_is_named_by_every_field():
    assert Config(channels=[16, 32]) == Config(channels=(16, 32))
    assert Config(distortion=0).name == Config(distortion=0.0).name
    changes = {
        "latent_dim": 4, "channels": (4, 9), "kernel_size": 5, "task": "classify", "optimizer": "adamw",
        "learning_rate": 0.0123456789, "weight_decay": 0.0, "batch_size": 32, "epochs": 4, "distortion": 0.5,
        "images": 399, "seed": 1, "noise": 0.5, "kl_weight": 1e-4, "loss": "l1",
    }  # fmt: skip
    assert {*changes, "downsampling"} == {field.name for field in fields(TINY)}
    names = {replace(TINY, **{field: value}).name for field, value in changes.items()} | {TINY.name}
    assert len(names) == len(changes) + 1


def test_later_fields_are_named_only_where_they_differ():
    older = "reconstruct_d10_c8-32-64-88_k3_muon0.03_w0.05_b64_e6_x0.0_n55000_s0"
    assert Config().name == Config(noise=0, kl_weight=0.0).name == older
    assert Config(noise=0.5).name == older.replace("_s0", "_z0.5_s0")
    assert Config(kl_weight=1e-4).name == older.replace("_s0", "_kl0.0001_s0")
    assert Config(loss="l1").name == older.replace("_s0", "_lossl1_s0")
    pooled = Config(task="classify", downsampling="max_pool").name
    assert pooled == older.replace("_s0", "_downmax_pool_s0").replace("reconstruct", "classify")


REFUSED = {
    "latent_dim": (0, 785), "channels": ((), (16, 0), (8,) * 6), "kernel_size": (4, 11), "task": ("guess",),
    "learning_rate": (float("nan"), "fast"), "batch_size": (1,), "epochs": (0, True, 1.5, "3"), "seed": (-1,),
    "distortion": (-1, 99), "images": (1, 55_001), "downsampling": ("max_pool",), "latent_dims": (3,),
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(field, v) for field in REFUSED for v in REFUSED[field]])
def test_bad_configs_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


@pytest.mark.parametrize("two", [{"noise": 0.5, "kl_weight": 0.1}, {"task": "classify", "noise": 0.5}])
def test_two_regularisations_at_once_are_refused(two):
    with pytest.raises(ValueError, match="noise, kl_weight and task='classify': allowed is one"):
        Config(**two)


def test_a_transfer_needs_an_encoder_of_images_and_a_known_scheme():
    with pytest.raises(ValueError, match=r"encoder\.task='classify': allowed is 'reconstruct'"):
        Transfer("frozen", Config(task="classify"), 1, 0)
    with pytest.raises(ValueError, match=r"scheme(?s:.)*'frozen', 'fine_tuned'.*input_value='sideways'"):
        Transfer(scheme="sideways", encoder=Config(), labels_per_class=1, draw=0)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ({"task": "classify"}, "encoder.task='classify': allowed is 'reconstruct'"),
        ({"noise": 0.5}, "encoder.noise=0.5: allowed is 0.0"),
        ({"kl_weight": 0.1}, "encoder.kl_weight=0.1: allowed is 0.0"),
        ({"loss": "l1"}, "encoder.loss='l1': allowed is 'mse'"),
        ({}, "amount=11: allowed is 1 to 10, the latent_dim"),
    ],
)
def test_a_probe_needs_a_plain_encoder_and_no_more_directions_than_it_has(encoder, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Probe("retrained_decoder", Config(**encoder), amount=11)
    assert Probe("ill_conditioned_start", Config(), amount=11), "a condition may be any"
