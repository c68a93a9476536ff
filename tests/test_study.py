"""The committed study is whole, and what is stored is what the code gives."""

import shutil
from dataclasses import replace

import pytest
from small import TINY, small

from mnistae import data, study
from mnistae.config import Transfer
from mnistae.runs import evaluate_all
from mnistae.store import STUDY, store_for
from mnistae.training import Trained, build, train
from mnistae.transfer import BASELINES, SCHEMES, Outcome

HOME = data.ROOT / "checkpoints"
MNIST = data.load().name == "MNIST"
needs_mnist = pytest.mark.skipif(not MNIST, reason="there is no MNIST, only the sample")
STORE = store_for("MNIST")


def whole(experiments):
    found = STORE.outcomes(experiments := list(experiments))
    missing = set(experiments) - set(found)
    assert not missing, f"{len(missing)} outcomes are not stored, such as {missing.pop()}"
    return found


def stored(experiments):
    """Outcomes are read: a test that asks for one that is not stored is skipped."""
    try:
        return whole(experiments)
    except AssertionError as missing:
        pytest.skip(str(missing))


def committed():
    return [*study.everything(), *study.with_all_seeds(study.best_candidate())]


@needs_mnist
def test_every_network_of_the_study_is_committed():
    assert all(STORE.path(config).exists() for config in committed())
    assert sum(STORE.path(config).stat().st_size for config in committed()) < 100e6


@needs_mnist
def test_every_committed_network_loads():
    for config in committed():
        run = STORE.network(config)
        assert len(run.history) == config.epochs
        assert run.dataset == "MNIST"


@needs_mnist
def test_a_committed_network_can_be_trained_again():
    """Bit for bit on the kind of processor that it comes from; elsewhere the last digits differ."""
    config = study.STARTS[0]
    loss = train(config, data.load()).history[-1]["validation"]
    assert loss == pytest.approx(STORE.network(config).history[-1]["validation"], rel=0.02)


@needs_mnist
def test_the_best_candidate_is_chosen_on_validation_images_alone():
    validation = {config: STORE.network(config).history[-1]["validation"] for config in study.CANDIDATES}
    assert study.best_candidate() == min(validation, key=validation.get)


@needs_mnist
def test_the_best_candidate_is_that_of_the_store_in_use(store):
    candidates = [TINY, replace(TINY, seed=1)]
    for best in candidates:
        for config in candidates:
            row = {"train": 1.0, "validation": float(config != best)}
            store.save(config, Trained(build(config).state_dict(), [row], 0.0, {}))
        assert study.best_candidate(store, candidates) == best


@needs_mnist
@pytest.mark.parametrize("scheme", [*SCHEMES, *BASELINES])
def test_a_stored_transfer_can_be_repeated(scheme, tmp_path):
    """One draw of each scheme with 50 labels; the last digits may differ on another processor."""
    experiment = next(
        e
        for e in study.transfers(scheme, run=stored)
        if (e.encoder.latent_dim, e.labels_per_class) == (10, 5)
    )
    empty = replace(STORE, folder=tmp_path)
    shutil.copy(STORE.path(experiment.encoder), tmp_path)
    again = evaluate_all([experiment], empty, progress=False, mnist=data.load())[experiment]
    assert again.accuracy == pytest.approx(stored([experiment])[experiment].accuracy, abs=0.01)


def test_every_scheme_has_as_many_settings_of_the_same_ranges():
    drawn = {scheme: study.settings(scheme) for scheme in (*SCHEMES, *BASELINES)}
    assert len({len(settings) for settings in drawn.values()}) == 1
    for scheme, settings in drawn.items():
        assert settings == study.settings(scheme), "drawn alike each time"
        for setting in settings:
            assert set(setting) == set(study.FIELDS_USED[scheme])
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


def test_a_range_that_is_added_changes_no_setting_in_use(monkeypatch):
    before = study.settings("fine_tuned")
    monkeypatch.setattr(study, "RANGES", {"momentum": (0, 1), **study.RANGES, "clip": (0.1, 10)})
    fields = (*study.FIELDS_USED["fine_tuned"], "clip", "momentum")
    monkeypatch.setitem(study.FIELDS_USED, "fine_tuned", fields)
    after = study.settings("fine_tuned")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert len({row["clip"] for row in after}) > 30


def test_the_search_keeps_the_best_of_those_that_begin_best():
    settings, asked = study.settings("frozen"), []
    widths = [setting["hidden"] for setting in settings]
    widest = max(widths)

    def outcomes(experiments):
        """Wider is better, but the widest is lucky on the first three draws alone."""
        asked.append(list(experiments))
        tried = len(asked) == 2
        accuracy = {e: 0 if tried and e.hidden == widest else e.hidden for e in asked[-1]}
        return {e: Outcome(accuracy[e], 1, 0, "MNIST") for e in asked[-1]}

    first, chosen = study.search("frozen", 5, run=outcomes)
    assert first == widths
    assert len(asked[0]) == 3 * len(settings)
    finalists = {e.hidden for e in asked[1]}
    assert finalists == set(sorted(widths)[-len(finalists) :])
    assert {e.draw for e in asked[1]} == set(study.TUNING_DRAWS)
    assert chosen in settings
    assert chosen["hidden"] == sorted(finalists)[-2]


@needs_mnist
def test_the_whole_study_is_stored_and_what_the_user_adds_changes_nothing(tmp_path):
    """`python -m mnistae.study` has nothing to do on MNIST, with own networks and outcomes too."""
    for scheme in (*SCHEMES, *BASELINES):
        whole(study.transfers(scheme, run=whole))
    searched = [(scheme, "") for scheme in (*SCHEMES[:3], *BASELINES)]
    searched += [(scheme, variant) for scheme in SCHEMES[:2] for variant in ("plain", "taught")]
    for scheme, variant in searched:
        whole(study.transfers(scheme, variant=variant, run=whole))
        for k in study.LABELS_PER_CLASS:
            first, chosen = study.search(scheme, k, variant, whole)
            assert len(first) == len(study.candidates(scheme, variant))
            assert chosen in study.candidates(scheme, variant)
    whole(study.spreading(whole))
    assert study.best_grid(whole) in study.GRID
    whole([*study.ILL_CONDITIONED, *study.RETRAINED])
    for path in HOME.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "own_transfer.json").unlink(missing_ok=True)  # this machine's user's
    beside = replace(STORE, folder=tmp_path)
    beside.save(TINY, train(TINY, small()))
    beside.add({Transfer("frozen", TINY, labels_per_class=3, draw=0): Outcome(0.5, 1.0, 0.25, "MNIST")})
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {"own_transfer.json", f"{TINY.name}.safetensors"} <= set(before)
    study.main(replace(beside, prefix=STUDY))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
