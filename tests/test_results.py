import base64
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mnistae import data, figures, results
from mnistae.config import Config
from mnistae.results import Chapter
from mnistae.store import Run

EMPTY = data.Split(torch.zeros(0, 1, 28, 28), torch.zeros(0))


@pytest.fixture
def shown(monkeypatch):
    """What is displayed: (content, output metadata) one by one."""
    found = []

    def display(content, metadata=None, raw=False):
        found.append((content if raw else content.data, metadata))

    monkeypatch.setattr(results, "display", display)
    return found


MNIST = Chapter("4_transfer", "MNIST")
SAMPLE = Chapter("4_transfer", data.SAMPLE)


@pytest.mark.parametrize("chapter", [MNIST, Chapter("5_theory")])
def test_a_claim_that_does_not_hold_stops_the_notebook(shown, chapter):
    chapter.claim("One is less than two.", np.bool_(1 < 2))
    with pytest.raises(AssertionError, match=r"does not hold: Two is less than one\."):
        chapter.claim("Two is less than one.", 2 < 1)
    chapter.answer("So it is.")
    assert [text for text, _ in shown] == ["✓ One is less than two.", "So it is."]


def test_claims_about_mnist_are_not_made_of_the_sample(shown):
    SAMPLE.claim("The test error is 0.009.", False)
    SAMPLE.answer("It is small.")
    SAMPLE.claim("A theorem.", True, about_mnist=False)
    with pytest.raises(AssertionError):
        SAMPLE.claim("A theorem.", False, about_mnist=False)
    assert [text for text, _ in shown] == [
        "(of MNIST, not checked on the embedded sample) The test error is 0.009.",
        "(on the embedded sample, no result) It is small.",
        "✓ A theorem.",
    ]


@pytest.mark.parametrize("name", ["MNIST", data.SAMPLE])
def test_a_chapter_announces_its_data_to_readers_and_to_the_report(shown, name):
    chapter = Chapter.on("1_reconstruction", data.Data(EMPTY, EMPTY, EMPTY, name))
    assert chapter == Chapter("1_reconstruction", name)
    [(text, metadata)] = shown
    assert metadata == {"mnistae": {"data": name}}
    assert "0 training, 0 validation and 0 test images" in text
    assert ("NOT RESULTS" in text) == (name != "MNIST")


def test_a_note_follows_from_the_data_of_what_is_shown():
    stored = pd.DataFrame({"dataset": ["MNIST", "MNIST"]})
    mixed = pd.DataFrame({"dataset": ["MNIST", data.SAMPLE]})
    assert MNIST.note() == MNIST.note(stored) == ""
    assert SAMPLE.note() == SAMPLE.note(mixed) == "NOT RESULTS: embedded sample, seen in training"
    assert SAMPLE.note(stored) == "MNIST's stored results"


@pytest.mark.parametrize("chapter", [MNIST, SAMPLE])
def test_figures_and_tables_are_shown_with_their_note(shown, chapter):
    frame = pd.DataFrame({"dataset": ["MNIST"]})
    note = chapter.note(frame)
    with plt.rc_context({"text.usetex": True}):  # as a reader's matplotlibrc may ask
        figures.style()
        figure, _ = plt.subplots()
        chapter.show(frame)
    [(content, metadata)] = shown
    assert content["text/plain"] == "<Figure>", "the same with every version of matplotlib"
    assert base64.b64decode(content["image/png"]).startswith(b"\x89PNG")
    assert metadata == ({"mnistae": {"note": note}} if note else {})
    assert "".join(text.get_text() for text in figure.texts) == note
    assert figure.number not in plt.get_fignums(), "or it would be shown again"
    table = chapter.table(frame, frame)
    assert table.metadata == metadata
    assert (f'<caption style="color:red">{note}</caption>' in table.data) == bool(note)


def test_a_table_has_no_row_numbers_and_a_reader_s_options_change_no_digit():
    frame = pd.DataFrame({"error": [0.0312345], "text": ["0.1 ± 0.2" * 20], "n": [(1, 2)]}, index=["base"])
    many = pd.DataFrame({n: range(100) for n in range(30)})
    options = ["display.float_format", "{:.2f}".format, "display.max_colwidth", 10]
    options += ["display.chop_threshold", 0.1, "display.max_seq_items", 1]
    with pd.option_context(*options, "display.max_rows", 5, "display.max_columns", 5):
        html = MNIST.table(frame).data
        assert MNIST.table(many).data.count("<td>") == 3_000
    assert html.count("<th>") == 3
    assert re.findall("<td>(.*)</td>", html) == ["0.031234", "0.1 ± 0.2" * 20, "(1, 2)"]
    assert 'class="dataframe"' in html


def test_records_are_rounded_joined_and_named_by_their_data(tmp_path):
    assert results.collected(tmp_path) == {"dataset": "", "headlines": {}}
    one = Chapter("1_reconstruction", "MNIST", tmp_path)
    values = {2: {"mse": [0.0123456789, 1]}, "channels": (8, 16), "n": np.int64(3), "x": np.float64(1 / 3)}
    replace(one, name="4_transfer_learning").record([], {"How many?": "7"})
    one.record(values, {"How small?": "0.0123"})
    one.record([1], {}, "_noise")
    found = results.collected(tmp_path)
    assert list(found["headlines"].items()) == [("How small?", "0.0123"), ("How many?", "7")]
    assert {name: numbers for name, numbers in found.items() if name != "headlines"} == {
        "dataset": "MNIST",
        "reconstruction": {"2": {"mse": [0.0123457, 1]}, "channels": [8, 16], "n": 3, "x": 0.333333},
        "reconstruction_noise": [1],
        "transfer_learning": [],
    }
    replace(one, name="2_x", dataset=data.SAMPLE).record({}, {})
    with pytest.raises(ValueError, match="mixes MNIST and embedded sample: run all the notebooks again"):
        results.collected(tmp_path)


def test_a_table_has_a_row_an_experiment_with_its_fields_and_results():
    configs = [Config(seed=seed) for seed in (0, 1)]
    table = results.tidy({config: Run(config, None, [{"train": 0.5}], 1.5, "MNIST") for config in configs})
    assert table[["seed", "latent_dim", "cpu_seconds"]].to_numpy().tolist() == [[0, 10, 1.5], [1, 10, 1.5]]
    assert table.history.tolist() == [[{"train": 0.5}]] * 2
    assert results.mean_sd([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00", "sample deviation"
    assert results.mean_sd([1.001, 1.002, 1.003], 2) == "1.00 ± 0.001", "not ± 0.00"
    assert results.mean_sd([1.0, 1.0], 2) == "1.00 ± 0.00"


@pytest.mark.parametrize(("lowest_at_two", "steep"), [(0.31, True), (0.29, False)])
def test_decreases_means_without_overlap_at_every_step(lowest_at_two, steep):
    frame = pd.DataFrame({"d": [4, 2, 2, 4], "error": [0.3, lowest_at_two, 0.5, 0.2]})
    assert results.decreases(frame, "error", "d") == steep
