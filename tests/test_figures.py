"""What a figure shows is what it was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mnistae import figures


@pytest.fixture
def axis():
    figures.style()
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def test_a_grid_shows_each_image_as_ink_on_paper_with_its_names():
    rows = {"top": torch.rand(3, 1, 28, 28), "below": torch.rand(2, 1, 28, 28)}
    figure = figures.image_grid(rows, ["a", "b", "c"])
    shown = [axis.images[0] for axis in figure.axes if axis.images]
    assert len(shown) == 5
    assert np.allclose(shown[0].get_array(), rows["top"][0, 0])
    assert shown[0].get_clim() == (0, 1), "not stretched: grey must mean the same everywhere"
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
    assert [axis.texts[0].get_text() for axis in (figure.axes[0], figure.axes[3])] == ["top", "below"]
    plt.close(figure)


def test_a_sweep_shows_mean_deviation_and_every_run(axis):
    figures.sweep(axis, [2, 4], [[1.0, 3.0], [5.0]], "error", index=9)
    mean = axis.containers[0].lines[0]
    assert mean.get_ydata().tolist() == [2.0, 5.0]
    bars = [segment[:, 1].tolist() for segment in axis.containers[0].lines[2][0].get_segments()]
    assert bars == [pytest.approx([2 - 2**0.5, 2 + 2**0.5]), [5.0, 5.0]], "sample deviation; none of one run"
    dots = [line.get_ydata() for line in axis.lines if line.get_marker() == "."]
    assert sorted(np.concatenate(dots)) == [1.0, 3.0, 5.0]


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
    figures.size_axis(axis, (2, 10, 64))
    figures.plain_log(axis)
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2", "10", "64"]
    assert "0.02" in {axis.yaxis.get_major_formatter()(value) for value in axis.yaxis.get_ticklocs()}


def test_each_digit_is_named_where_it_is(axis):
    points = np.array([[0.0, 0.0], [2.0, 0.0], [9.0, 9.0]])
    figures.digit_scatter(axis, points, torch.tensor([7, 7, 1]))
    assert {text.get_text(): text.get_position() for text in axis.texts} == {"7": (1.0, 0.0), "1": (9.0, 9.0)}


def test_a_table_has_no_row_numbers():
    html = figures.table({"d": [2], "error": ["0.1 ± 0.2"]}).data
    assert html.count("<th>") == 2
    assert "<td>0.1 ± 0.2</td>" in html
