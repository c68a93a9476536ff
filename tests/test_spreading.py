"""Label spreading on points of the plane: ten clusters, one for each digit."""

import numpy as np
import pytest

from mnistae.spreading import build_graph, spread, votes

chance = np.random.default_rng(0)
DIGITS = np.repeat(np.arange(10), 30)
CLUSTERS = np.stack([DIGITS % 5, DIGITS // 5], 1) * 10.0 + chance.normal(size=(300, 2))
ONE_EACH = CLUSTERS[::30]
TEN = np.arange(10)
GRAPH = build_graph(CLUSTERS, 10)


def test_one_label_each_is_enough_for_ten_clusters():
    shares, unreached = spread(GRAPH, ONE_EACH, TEN, 0.99)
    assert (shares.argmax(1) == DIGITS).mean() > 0.97
    assert unreached == 0
    assert np.allclose(shares.sum(1), 1)
    assert (shares >= 0).all()
    new = votes(GRAPH, CLUSTERS + 0.01) @ shares
    assert (new.argmax(1) == DIGITS).mean() > 0.97
    assert np.allclose(new.sum(1), 1)


def test_weights_are_symmetric_with_eigenvalues_in_the_unit_interval():
    weights = GRAPH.weights.toarray()
    assert np.allclose(weights, weights.T)
    assert np.abs(np.linalg.eigvalsh(weights)).max() < 1 + 1e-5


def test_the_result_is_the_limit_of_the_iteration():
    s, y = GRAPH.weights.toarray().astype(float), np.zeros((300, 10))
    y[::30] = np.eye(10)
    f = y.copy()
    for _ in range(3_000):
        f = 0.99 * s @ f + 0.01 * y
    f /= f.sum(0)
    shares, _ = spread(GRAPH, ONE_EACH, TEN, 0.99)
    reached = f.sum(1) > 1e-6  # without parts that almost no label reaches
    assert np.allclose(shares[reached], (f / f.sum(1, keepdims=True))[reached], atol=2e-3)


def test_a_part_without_a_label_takes_the_nearest_label_and_is_reported():
    far = np.r_[CLUSTERS, [[1_000, 5_000]] * 20 + chance.normal(size=(20, 2))]
    shares, unreached = spread(build_graph(far, 5), ONE_EACH, TEN, 0.9)
    nearest = np.square(ONE_EACH - far[-1]).sum(1).argmin()
    assert unreached >= 20 / 320
    assert (shares[-20:].argmax(1) == nearest).all()
    assert np.isfinite(shares).all()


def test_copies_of_a_point_do_no_harm():
    codes = np.r_[np.repeat(CLUSTERS[:1], 40, 0), CLUSTERS]
    shares, _ = spread(build_graph(codes, 10), ONE_EACH, TEN, 0.99)
    assert np.isfinite(shares).all()
    assert (shares.argmax(1)[40:] == DIGITS).mean() > 0.9


def test_a_labelled_image_outside_the_graph_labels_its_nearest_node():
    inside, _ = spread(GRAPH, ONE_EACH, TEN, 0.99)
    outside, _ = spread(GRAPH, ONE_EACH + 1e-6, TEN, 0.99)
    assert np.array_equal(inside, outside)


def test_the_order_of_labels_and_the_type_of_codes_do_not_matter():
    back = TEN[::-1]
    expected = spread(GRAPH, ONE_EACH, TEN, 0.9)[0]
    assert np.allclose(expected, spread(GRAPH, ONE_EACH[back], back, 0.9)[0])
    single = build_graph(CLUSTERS.astype("float32"), 10)
    assert (spread(single, ONE_EACH.astype("float32"), TEN, 0.9)[0].argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("codes", [CLUSTERS * np.nan, np.where(DIGITS[:, None] == 7, np.inf, CLUSTERS)])
def test_bad_codes_and_impossible_numbers_of_neighbours_are_refused(codes):
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        build_graph(codes, 5)
    with pytest.raises(ValueError, match=r"all codes are \[3"):
        build_graph(CLUSTERS * 0 + 3, 5)
    for neighbours in (0, 300):
        with pytest.raises(ValueError, match="n_neighbors"):
            build_graph(CLUSTERS, neighbours)


def test_a_digit_without_a_label_is_refused():
    with pytest.raises(ValueError, match=r"digits \[0 1 2 3 4 5 6 7 8\]: needed is a label of each"):
        spread(GRAPH, ONE_EACH[:9], TEN[:9], 0.9)
