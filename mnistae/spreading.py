"""Label spreading: a few labelled images teach all others, along a graph of similar codes.

Source: Zhou et al., "Learning with local and global consistency", 2004. The graph uses no label: build it
once for an encoder, then spread any choice of labels on it. Arrays in, arrays out; nothing is random.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import cg


class Graph(NamedTuple):
    """N images as nodes."""

    codes: np.ndarray  # (N, d)
    search: Any  # scikit-learn's NearestNeighbors, fitted to them
    weights: csr_array  # (N, N) float32: S = D^-½ W D^-½, symmetric, eigenvalues from -1 to 1


def build_graph(codes: np.ndarray, neighbours: int) -> Graph:
    """Link each node to its `neighbours` nearest ones. codes: (N, d), or other features such as pixels.

    An edge has the larger of the two weights that its ends give it. Raises ValueError for codes that are all
    equal, and, as scikit-learn does, for codes that are not finite and for neighbours outside 1 to N - 1.
    """
    if not np.ptp(codes, axis=0).any():
        raise ValueError(f"all codes are {codes[0]}: none is nearer than another. Train the encoder again.")
    from sklearn.neighbors import NearestNeighbors  # as late as in measures

    search = NearestNeighbors(n_neighbors=neighbours).fit(codes)
    weights = _weights(search)
    weights = weights.maximum(weights.T)
    scale = diags_array(weights.sum(1) ** -0.5)  # never 1/0: each edge of a node weighs at least 1/e
    return Graph(codes, search, (scale @ weights @ scale).tocsr().astype(np.float32))


def spread(graph: Graph, codes: np.ndarray, digits: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Class probabilities of all nodes, (N, 10), and the share of nodes that no label reaches.

    codes: (n, d), of the labelled images; each one labels the node nearest to it, itself if it is a node.
    digits: (n,), their labels. alpha: between 0 and 1, the share that a node takes from its neighbours.
    F = (I - αS)⁻¹ Y is the limit of Zhou's iteration F ← αSF + (1 - α)Y, up to a factor. Conjugate gradients
    need 50 to 100 steps for it, the iteration a thousand at α = 0.99. Class-mass normalisation (Zhu et al.,
    2003) then gives each digit the same total mass, since all digits are equally frequent. A node that no
    label reaches takes the label of the nearest labelled image. Raises ValueError unless each digit has one.
    """
    if set(digits.tolist()) != set(range(10)):
        raise ValueError(f"digits {np.unique(digits)}: needed is a label of each digit from 0 to 9")
    y = np.zeros((len(graph.codes), 10), np.float32)
    y[graph.search.kneighbors(codes, 1, return_distance=False)[:, 0], digits] = 1
    system = (eye_array(len(y), dtype=y.dtype) - np.float32(alpha) * graph.weights).tocsr()
    f = np.stack([cg(system, column, rtol=1e-6)[0] for column in y.T], axis=1).clip(0)
    lost = f.sum(1) == 0  # exactly 0 in a part of the graph without a label
    f /= f.sum(0)
    if lost.any():
        nearest = type(graph.search)(n_neighbors=1).fit(codes)
        f[lost, digits[nearest.kneighbors(graph.codes[lost], return_distance=False)[:, 0]]] = 1
    return f / f.sum(1, keepdims=True), float(lost.mean())


def votes(graph: Graph, codes: np.ndarray) -> csr_array:
    """The weights of the nearest nodes of M new images: (M, d) -> (M, N), rows sum to 1.

    `votes(graph, codes) @ probabilities` are the new images' class probabilities, (M, 10).
    """
    weights = _weights(graph.search, codes)
    return (diags_array(1 / weights.sum(1)) @ weights).tocsr()


def _weights(search: Any, codes: np.ndarray | None = None) -> csr_array:
    # exp(-(distance / distance of the last neighbour)²): from 1 to 1/e, whether codes are dense or sparse.
    distances, nearest = search.kneighbors(codes)  # None: of the nodes, each without itself
    scale = np.maximum(distances[:, -1:], np.finfo(float).tiny)  # 0 if all neighbours are copies
    weights, starts = np.exp(-np.square(distances / scale)), np.arange(0, nearest.size + 1, nearest.shape[1])
    return csr_array((weights.ravel(), nearest.ravel(), starts), (len(weights), search.n_samples_fit_))
