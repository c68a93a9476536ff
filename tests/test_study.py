"""The committed study is whole, and what is stored is what the code gives."""

import pytest
import torch
from safetensors.torch import load

from mnistae import checkpoints, data, measures, study, training, transfer
from mnistae.config import Config
from mnistae.training import build, trained, trained_all
from mnistae.transfer import SCHEMES, YARDSTICKS

HOME = checkpoints.folder("MNIST")
needs_mnist = pytest.mark.skipif(data.load().name != "MNIST", reason="there is no MNIST, only the sample")


@pytest.fixture
def stored(monkeypatch):
    """Outcomes are read: a test that asks for one that is not stored yet is skipped."""

    def none(work, jobs, **_):
        if jobs:
            pytest.skip(f"{len(jobs)} transfers are not stored yet, such as {transfer._key(jobs[0])}")
        return iter(())

    monkeypatch.setattr(transfer, "in_parallel", none)


@needs_mnist
def test_every_network_of_the_study_is_committed_and_no_other():
    asked = [*study.everything(), *study.seeded(study.best_candidate())]
    assert {path.name for path in HOME.glob("*.safetensors")} == {
        f"{config.name}.safetensors" for config in asked
    }
    assert sum(path.stat().st_size for path in HOME.iterdir()) < 85e6


@needs_mnist
def test_every_committed_network_loads():
    configs = [*study.everything(), *study.seeded(study.best_candidate())]
    for config in configs:
        with torch.device("meta"):
            expected = build(config).state_dict()
        weights, about = checkpoints.read(config, expected)
        assert weights.keys() == expected.keys()
        assert len(about["history"]) == config.epochs


@needs_mnist
def test_a_committed_network_can_be_trained_again():
    """Bit for bit on the kind of processor that it comes from; elsewhere the last digits differ."""
    config = study.STARTS[0]
    committed = trained(config, progress=False)
    with torch.device("meta"):
        network = build(config)
    network.load_state_dict(load(training.train(config, "MNIST", "cpu")), assign=True)
    loss = measures.reconstruction_mse(network.eval(), data.load().validation.images)
    assert loss == pytest.approx(committed.history[-1]["validation"], rel=0.02)


@needs_mnist
def test_the_best_candidate_is_chosen_on_validation_images_alone():
    runs = trained_all(study.CANDIDATES, progress=False)
    validation = {config: run.history[-1]["validation"] for config, run in runs.items()}
    assert study.best_candidate() == min(validation, key=validation.get)
    base = [trained(config, progress=False).cpu_seconds for config in study.seeded(study.BASE)]
    best = [trained(config, progress=False).cpu_seconds for config in study.seeded(study.best_candidate())]
    assert max(base) <= 150
    assert max(best) <= 900


@needs_mnist
@pytest.mark.parametrize("scheme", [*SCHEMES, *YARDSTICKS])
def test_a_stored_transfer_can_be_repeated(stored, scheme):
    """One draw of each scheme with 50 labels; the last digits may differ on another processor."""
    experiment = next(
        e for e in study.transfers(scheme) if (e.encoder.latent_dim, e.labels_per_class) == (10, 5)
    )
    kept = transfer.transfer_all([experiment], progress=False)[experiment]
    torch.set_num_threads(1)
    assert transfer.transfer(experiment).accuracy == pytest.approx(kept.accuracy, abs=0.01)


def test_every_scheme_has_as_many_settings_of_the_same_ranges():
    drawn = {scheme: study.settings(scheme) for scheme in (*SCHEMES, *YARDSTICKS)}
    assert len({len(settings) for settings in drawn.values()}) == 1
    for scheme, settings in drawn.items():
        assert settings == study.settings(scheme), "drawn alike each time"
        for setting in settings:
            assert set(setting) == set(study.HEEDED[scheme])
            for name, value in setting.items():
                low, high = study.RANGES[name]
                assert low * 0.9 <= value <= high * 1.1, "rounded"
    assert drawn["fine_tuned"] == drawn["from_scratch"]
    shared = [{name: setting[name] for name in study.MLP_FIELDS} for setting in drawn["fine_tuned"]]
    assert shared == drawn["frozen"], "and the same for every scheme"


def test_settings_are_tuned_on_validation_images_and_on_draws_of_their_own():
    setting = study.settings("frozen")[0]
    for experiment in study.trials("frozen", 5, setting, study.TUNING_DRAWS):
        assert experiment.split == "validation"
        assert experiment.draw not in study.DRAWS
        assert experiment.labels_per_class == 5
        assert {name: getattr(experiment, name) for name in setting} == setting


def test_the_search_keeps_the_best_of_those_that_begin_best(monkeypatch):
    settings, asked = study.settings("frozen"), []
    widths = [setting["hidden"] for setting in settings]
    widest = max(widths)

    def outcomes(experiments):
        """Wider is better, but the widest has luck on the first three draws alone."""
        asked.append(list(experiments))
        tried = len(asked) == 2
        return {e: transfer.Outcome(0 if tried and e.hidden == widest else e.hidden, 1, 0) for e in asked[-1]}

    monkeypatch.setattr(study, "transfer_all", outcomes)
    first, kept = study.search.__wrapped__("frozen", 5)
    assert first == widths
    assert len(asked[0]) == 3 * len(settings)
    finalists = {e.hidden for e in asked[1]}
    assert finalists == set(sorted(widths)[-len(finalists) :])
    assert {e.draw for e in asked[1]} == set(study.TUNING_DRAWS)
    assert kept in settings
    assert kept["hidden"] == sorted(finalists)[-2]


@needs_mnist
def test_the_chosen_setting_is_one_of_those_that_were_drawn(stored):
    for scheme in (*SCHEMES, *YARDSTICKS):
        for k in study.LABELS_PER_CLASS:
            first, kept = study.search(scheme, k)
            assert len(first) == len(study.settings(scheme))
            assert kept in study.settings(scheme)


def test_the_plan_comes_first_and_a_second_call_has_none(small_data, monkeypatch, capsys):
    tiny = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400)
    monkeypatch.setattr(study, "CANDIDATES", [tiny])
    monkeypatch.setattr(study, "everything", lambda: [tiny])
    monkeypatch.setattr(study, "SCHEMES", ("frozen",))
    monkeypatch.setattr(study, "YARDSTICKS", ())
    asked = []
    monkeypatch.setattr(study, "transfer_all", lambda experiments: asked.extend(experiments))
    monkeypatch.setattr(study, "search", lambda scheme, k: ([], {}))
    monkeypatch.setattr(
        training, "in_parallel", lambda job, items, *rest, **_: ((item, job(item, *rest)) for item in items)
    )
    study.main()
    said = capsys.readouterr().err
    assert "Training 1 network(s)" in said
    assert "Training 2 network(s)" in said, "the seeds of the best candidate"
    assert "about 0 minutes" in said
    assert len(list(checkpoints.folder("MNIST").iterdir())) == 3
    assert {*study.transfers("frozen"), *study.transfers("frozen", [tiny])} <= set(asked)
    study.main()
    assert capsys.readouterr().err == ""
    other = Config(channels=(4, 8), latent_dim=3, batch_size=16, epochs=3, images=400, seed=9)
    monkeypatch.setattr(study, "CANDIDATES", [other, tiny])
    trained(other, progress=False)
    monkeypatch.setattr(study, "best_candidate", lambda: tiny)
    study.main()
    assert capsys.readouterr().err == "", "the seeds of the candidate that was chosen are there"
