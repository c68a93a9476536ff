import json

import pytest

from mnistae import data, figures, results


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def on(monkeypatch, name):
    monkeypatch.setattr(data, "load", lambda: data.Data(None, None, None, name))


def test_a_claim_that_does_not_hold_stops_the_notebook(monkeypatch, capsys):
    on(monkeypatch, "MNIST")
    results.claim("One is less than two.", 1 < 2)
    with pytest.raises(AssertionError, match=r"does not hold: Two is less than one\."):
        results.claim("Two is less than one.", 2 < 1)


def test_claims_about_mnist_are_not_made_of_the_stand_in(monkeypatch):
    on(monkeypatch, data.STAND_IN)
    results.claim("The test error is 0.009.", False)
    with pytest.raises(AssertionError):
        results.claim("A theorem.", False, about_mnist=False)


def test_records_are_rounded_joined_and_named_by_their_data(monkeypatch, folder):
    on(monkeypatch, "MNIST")
    results.record("reconstruction", {2: {"test_mse": [0.0123456789, 1]}, "channels": (8, 16)})
    results.record("transfer", [])
    assert results.collected(folder) == {
        "dataset": "MNIST",
        "reconstruction": {"2": {"test_mse": [0.0123457, 1]}, "channels": [8, 16]},
        "transfer": [],
    }
    assert sorted(path.name for path in folder.iterdir()) == ["reconstruction.json", "transfer.json"]
    json.loads((folder / "transfer.json").read_text())


def test_two_data_sets_are_never_mixed(monkeypatch, folder):
    on(monkeypatch, "MNIST")
    results.record("reconstruction", {})
    on(monkeypatch, data.STAND_IN)
    results.record("transfer", {})
    with pytest.raises(ValueError, match="mixes MNIST and stand-in digits: run all the notebooks again"):
        results.collected(folder)


def test_nothing_recorded_is_no_data_set(folder):
    assert results.collected(folder) == {"dataset": ""}


def test_mean_sd_is_the_sample_standard_deviation():
    assert results.mean_sd([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"


def test_figures_off_mnist_say_so():
    import matplotlib.pyplot as plt

    for name, notes in (("MNIST", 0), (data.STAND_IN, 1)):
        figures.style(name)
        figure, _ = plt.subplots()
        assert [text.get_text() for text in figure.texts] == ["NOT MNIST: stand-in digits"] * notes
        plt.close(figure)
    figures.style()
