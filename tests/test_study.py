"""The committed study is whole, and what is stored is what the code gives."""

import json
from dataclasses import replace

import pytest
import torch

from mnistae import checkpoints, data, study, training
from mnistae.training import Config, trained, trained_all
from mnistae.transfer import SCHEMES, _key, transfer

HOME = checkpoints.folder("MNIST")
needs_mnist = pytest.mark.skipif(
    not (data.ROOT / "data" / "MNIST" / "raw").exists(), reason="MNIST is not in data/"
)


def test_every_network_of_the_study_is_committed_and_no_other():
    best = study.seeded(next(c for c in study.CANDIDATES.values() if len(list(HOME.glob(seeds_of(c)))) > 1))
    asked = {f"{config.name}.safetensors" for config in [*study.everything(), *best]}
    assert {path.name for path in HOME.glob("*.safetensors")} == asked
    assert sum(path.stat().st_size for path in HOME.iterdir()) < 60e6


def seeds_of(config):
    return config.name.rsplit("_s", 1)[0] + "_s*"


@needs_mnist
def test_the_best_candidate_is_chosen_on_validation_images_alone():
    runs = trained_all(study.CANDIDATES.values(), progress=False)
    validation = {config: run.history[-1]["validation"] for config, run in runs.items()}
    assert study.best_candidate() == min(validation, key=validation.get)
    base = [trained(config, progress=False).cpu_seconds for config in study.seeded(study.BASE)]
    best = [trained(config, progress=False).cpu_seconds for config in study.seeded(study.best_candidate())]
    assert max(base) <= 150
    assert max(best) <= 900


@needs_mnist
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stored_transfer_can_be_repeated(scheme):
    """One draw of each scheme with 50 labels; the last digits may differ on another processor."""
    kept = json.loads((HOME / "transfer.json").read_text())["outcomes"]
    experiment = study.transfers(scheme)[10, 5][0]
    torch.set_num_threads(1)
    assert transfer(experiment).accuracy == pytest.approx(kept[_key(experiment)][0], abs=0.01)


def test_every_scheme_is_tuned_with_equal_effort():
    trials = {scheme: study.search(scheme) for scheme in SCHEMES}
    assert {len(by_setting) for by_setting in trials.values()} == {20}
    assert {len(draws) for by_setting in trials.values() for draws in by_setting.values()} == {6}
    for by_setting in trials.values():
        assert all(e.draw >= 1_000 for draws in by_setting.values() for e in draws), "judged on test images"
    assert all(
        getattr(e, name) in study.RANGES[name]
        for draws in trials["fine_tuned"].values()
        for e in draws
        for name in study.RANGES
    )


def test_the_plan_comes_first_and_a_second_call_has_none(small_data, monkeypatch, capsys):
    tiny = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
    monkeypatch.setattr(study, "CANDIDATES", {0.05: tiny})
    monkeypatch.setattr(study, "everything", lambda: [tiny])
    monkeypatch.setattr(study, "SCHEMES", ("frozen",))
    asked = []
    monkeypatch.setattr(study, "transfer_all", lambda experiments: asked.extend(experiments))
    monkeypatch.setattr(study, "tuned", lambda scheme: {})
    monkeypatch.setattr(
        training, "in_parallel", lambda job, items, *rest, **_: ((item, job(item, *rest)) for item in items)
    )
    study.main()
    assert "3 networks to train, about 0 minutes on" in capsys.readouterr().out
    assert len(list(checkpoints.folder("MNIST").iterdir())) == 3
    assert len(asked) == (len(study.TRANSFER_DIMS) + 1) * len(study.LABELS_PER_CLASS) * len(study.DRAWS)
    study.main()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(study, "CANDIDATES", {0.1: replace(tiny, seed=9), 0.05: tiny})
    trained(replace(tiny, seed=9), progress=False)
    monkeypatch.setattr(study, "best_candidate", lambda: tiny)
    study.main()
    assert capsys.readouterr().out == "", "the seeds of the candidate that was chosen are there"
