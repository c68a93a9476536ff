import json

import numpy as np
import pandas as pd
import pytest
import torch

from mnistae import data, results
from mnistae.config import Config
from mnistae.training import Run

EMPTY = data.Split(torch.zeros(0, 1, 28, 28), torch.zeros(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (text, output metadata) one by one."""
    displayed = []

    def display(markdown, metadata=None):
        displayed.append((markdown.data, metadata))

    monkeypatch.setattr(results, "display", display)
    return displayed


def on(monkeypatch, name):
    monkeypatch.setattr(data, "load", lambda: data.Data(EMPTY, EMPTY, EMPTY, name))


def test_a_claim_that_does_not_hold_stops_the_notebook(monkeypatch, shown):
    on(monkeypatch, "MNIST")
    results.claim("One is less than two.", 1 < 2)
    with pytest.raises(AssertionError, match=r"does not hold: Two is less than one\."):
        results.claim("Two is less than one.", 2 < 1)
    results.answer("So it is.")
    assert [text for text, _ in shown] == ["✓ One is less than two.", "So it is."]


def test_claims_about_mnist_are_not_made_of_the_sample(monkeypatch, shown):
    on(monkeypatch, data.SAMPLE)
    results.claim("The test error is 0.009.", False)
    results.answer("It is small.")
    results.claim("A theorem.", True, about_mnist=False)
    with pytest.raises(AssertionError):
        results.claim("A theorem.", False, about_mnist=False)
    assert [text for text, _ in shown] == [
        "(of MNIST, not checked on the embedded sample) The test error is 0.009.",
        "(on the embedded sample, no result) It is small.",
        "✓ A theorem.",
    ]


@pytest.mark.parametrize("name", ["MNIST", data.SAMPLE])
def test_a_chapter_announces_its_data_to_readers_and_to_the_report(monkeypatch, shown, name):
    on(monkeypatch, name)
    results.announce(data.load())
    [(text, metadata)] = shown
    assert metadata == {"mnistae": {"data": name}}
    assert "0 training, 0 validation and 0 test images" in text
    assert ("NOT RESULTS" in text) == (name != "MNIST")


def test_records_are_rounded_joined_and_named_by_their_data(monkeypatch, folder):
    on(monkeypatch, "MNIST")
    values = {
        2: {"test_mse": [0.0123456789, 1]},
        "channels": (8, 16),
        "n": np.int64(3),
        "x": np.float64(1 / 3),
    }
    results.record("4_transfer_learning", [], {"How many?": "7"})
    results.record("1_reconstruction", values, {"How small?": "0.0123"})
    assert results.collected(folder) == {
        "dataset": "MNIST",
        "headlines": {"How small?": "0.0123", "How many?": "7"},
        "reconstruction": {"2": {"test_mse": [0.0123457, 1]}, "channels": [8, 16], "n": 3, "x": 0.333333},
        "transfer_learning": [],
    }
    assert list(results.collected(folder)["headlines"]) == ["How small?", "How many?"]
    names = ["1_reconstruction.json", "4_transfer_learning.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert json.loads((folder / names[1]).read_text())["dataset"] == "MNIST"


def test_two_data_sets_are_never_mixed(monkeypatch, folder):
    on(monkeypatch, "MNIST")
    results.record("reconstruction", {}, {})
    on(monkeypatch, data.SAMPLE)
    results.record("transfer", {}, {})
    with pytest.raises(ValueError, match="mixes MNIST and embedded sample: run all the notebooks again"):
        results.collected(folder)


def test_nothing_recorded_is_no_data_set(folder):
    assert results.collected(folder) == {"dataset": "", "headlines": {}}


def test_a_table_has_a_row_an_experiment_with_its_fields_and_results():
    runs = {Config(seed=seed): Run(Config(seed=seed), None, [{"train": 0.5}], 1.5) for seed in (0, 1)}
    table = results.table(runs)
    assert table.seed.tolist() == [0, 1]
    assert table.latent_dim.tolist() == [10, 10]
    assert table.cpu_seconds.tolist() == [1.5, 1.5]
    assert table.history.tolist() == [[{"train": 0.5}]] * 2


def test_mean_sd_is_the_sample_standard_deviation():
    assert results.mean_sd([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"


@pytest.mark.parametrize(("lowest_at_two", "steep"), [(0.31, True), (0.29, False)])
def test_falls_means_by_more_than_the_spread_at_every_step(lowest_at_two, steep):
    frame = pd.DataFrame({"d": [4, 2, 2, 4], "error": [0.3, lowest_at_two, 0.5, 0.2]})
    assert results.falls(frame, "error", "d") == steep
