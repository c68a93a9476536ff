"""What a figure shows is what it was given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from mnistae import figures


@pytest.fixture
def axis():
    figures.style()
    _, axis = plt.subplots()
    yield axis
    plt.close("all")


def test_a_grid_shows_each_image_as_ink_on_paper_with_its_names():
    figures.style()
    rows = {"top": torch.rand(3, 1, 28, 28), "below": torch.rand(3, 1, 28, 28)}
    figure = figures.image_grid(rows, ["a", "b", "c"])
    [axis] = figure.axes
    sheet = axis.images[0].get_array()
    assert axis.images[0].get_clim() == (0, 1), "grey must mean the same everywhere"
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            tile = sheet[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert np.array_equal(tile[2:-2, 2:-2], image[0])
            assert tile.sum() == pytest.approx(image.sum().item(), rel=1e-5), "paper around it"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["a", "b", "c"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["top", "below"]
    plt.close(figure)


def test_a_sweep_shows_mean_deviation_and_every_run(axis):
    frame = pd.DataFrame({"d": [2, 2, 4], "error": [1.0, 3.0, 5.0]})
    assert figures.sweep(frame, "d", "error", ax=axis) is axis
    assert axis.lines[0].get_ydata().tolist() == [2.0, 5.0]
    bars = axis.containers[0].lines[2][0].get_segments()
    assert bars[0][:, 1] == pytest.approx([2 - 2**0.5, 2 + 2**0.5]), "sample deviation"
    assert sorted(axis.collections[-1].get_offsets()[:, 1]) == [1.0, 3.0, 5.0]


def test_a_sweep_separates_curves_by_colour_and_marker(axis):
    frame = pd.DataFrame({"d": [2, 4, 2, 4], "error": [1.0, 3.0, 5.0, 7.0], "kind": ["a", "a", "b", "b"]})
    figures.sweep(frame, "d", "error", "kind", ax=axis)
    curves = [line for line in axis.lines if line.get_marker() in figures.MARKERS and len(line.get_xdata())]
    assert len({line.get_color() for line in curves}) == len({line.get_marker() for line in curves}) == 2


def test_a_correlation_map_groups_coordinates_on_a_fixed_scale(axis):
    groups = np.kron(np.eye(2), np.ones((2, 2)))[[0, 2, 1, 3]][:, [0, 2, 1, 3]]  # two pairs, interleaved
    figures.correlation_map(axis, groups, "d = 4", bar=True)
    mesh = axis.collections[0]
    shown = mesh.get_array().reshape(4, 4)
    assert np.array_equal(shown, np.kron(np.eye(2), np.ones((2, 2)))), "the pairs stand together"
    assert mesh.get_clim() == (-1, 1)
    assert axis.get_title() == "d = 4"


def test_axes_are_labelled_with_plain_numbers(axis):
    axis.plot([2, 64], [0.01, 0.05])
    figures.ticks_at(axis, (2, 10, 1_000), "labels")
    figures.plain_log(axis, "error")
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "10", "1,000"]
    assert "0.02" in {axis.yaxis.get_major_formatter()(value) for value in axis.yaxis.get_ticklocs()}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("labels", "error")
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_each_digit_is_labelled_at_its_median(axis):
    points = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    figures.digit_scatter(axis, points, torch.tensor([7, 7, 1]))
    assert {text.get_text(): text.get_position() for text in axis.texts} == {"7": (1.0, 0.0), "1": (9.0, 9.0)}


def test_no_number_of_a_digit_covers_another(axis):
    points = np.repeat(np.array([[0.0, 0.0], [0.0, 0.0], [10.0, 10.0]]), 20, axis=0)
    figures.digit_scatter(axis, points, np.repeat([4, 9, 1], 20))
    places = {text.get_text(): tuple(map(float, text.get_position())) for text in axis.texts}
    assert places == {"4": (0, 0), "9": (0.5, 0), "1": (10, 10)}
