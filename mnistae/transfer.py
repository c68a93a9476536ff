"""Classifiers from tens of labels: one experiment, given an encoder and data. No files."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mnistae import measures
from mnistae.config import Baseline, Network, Scheme, Spreading, Transfer
from mnistae.data import Data, Split, balanced_draw, distorted
from mnistae.networks import Classifier, Noise
from mnistae.parallel import alone
from mnistae.spreading import Graph, build_graph, spread, votes
from mnistae.training import build, classify, fit

SCHEMES: tuple[Network, ...] = get_args(Network)
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
SPREADING: tuple[Spreading, ...] = get_args(Spreading)
FEATURES: dict[Scheme, str] = {  # what each scheme reads of an image
    **dict.fromkeys(SCHEMES, "code"),
    "from_scratch": "pixels",
    **dict(zip((*BASELINES, *SPREADING), ("code", "pca", "pixels") * 2, strict=True)),
}
COPIES = 24  # distorted ones of each labelled image, where there are any


class Outcome(NamedTuple):
    """What an experiment measures."""

    accuracy: float  # on the images of the evaluation split
    train_accuracy: float  # on the labelled images
    code_shift: float  # how far fine-tuning moved the codes, as a share of their spread; else 0
    dataset: str  # the name of the data
    unreached: float = 0.0  # share of the graph's nodes that no label reaches, with label spreading


class View(NamedTuple):
    """How an encoder sees the images of an experiment, the same for any labels."""

    codes: Tensor  # of the evaluation split, (M, d)
    graph: Graph | None  # of training images, if labels spread
    votes: Any  # of its nodes on the evaluation split, (M, N), see `spreading.votes`


@alone()
def view(encoder: nn.Module, mnist: Data, split: str, nodes: int, neighbours: int) -> View:
    """The codes of a split's images and, if labels spread, the graph of training images with its votes.

    nodes: of the graph, 0 for none; each is linked to its nearest `neighbours`. Raises ValueError as
    `build_graph` does.
    """
    codes = measures.infer(encoder, getattr(mnist, split).images)
    if not nodes:
        return View(codes, None, None)
    graph = build_graph(measures.infer(encoder, mnist.train.images[:nodes]).numpy(), neighbours)
    return View(codes, graph, votes(graph, codes.numpy()))


def view_options(e: Transfer) -> tuple[str, int, int]:
    """What `view` needs to know of an experiment: split, nodes, neighbours."""
    spreads = e.scheme in SPREADING or e.teacher != "labels"
    return (e.split, e.nodes, e.neighbours) if spreads else (e.split, 0, 0)


def labelled_images(experiment: Transfer, mnist: Data) -> Split:
    """The training images whose labels the experiment may use. Raises ValueError as `balanced_draw` does."""
    chosen = balanced_draw(mnist.train.labels, experiment.labels_per_class, experiment.draw)
    return Split(mnist.train.images[chosen], mnist.train.labels[chosen])


def _classify_with_fixed_norm(network: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    for layer in network.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # keeps its statistics: those of a few dozen images are poor
    return classify(network, inputs, labels)


@alone()
def fit_classifier(e: Transfer, encoder: nn.Module, mnist: Data, graph: Graph | None = None) -> Classifier:
    """The classifier that an experiment ends with, in eval mode.

    encoder: the pre-trained one, (N, 1, 28, 28) -> (N, d); fine-tuning changes a copy, from_scratch builds
    its own. graph: of its codes, if spread labels teach. Raises ValueError for a scheme without a network.
    """
    if e.scheme not in SCHEMES:
        raise ValueError(f"scheme={e.scheme!r} has no network: allowed is one of {SCHEMES}")
    labelled, batch_size = labelled_images(e, mnist), e.batch_size or 10 * e.labels_per_class
    if graph:
        shares = torch.from_numpy(_spread(e, encoder, labelled, graph)[0])
        order = torch.randperm(len(shares), generator=torch.Generator().manual_seed(e.draw))
        some = order[: e.steps * batch_size]
        targets = shares if e.teacher == "spread_soft" else shares.argmax(1)
        labelled = Split(mnist.train.images[some], targets[some])
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(e.draw)
        network = Classifier(nn.Identity(), e.encoder.latent_dim, e.hidden)  # one head for every scheme
        # The noise goes on where the initial weights end.
        network.head.insert(0, Noise(e.noise, torch.default_generator.clone_state()))
    if e.scheme == "probe_then_fine_tuned":
        probe = fit_classifier(replace(e, scheme="frozen"), encoder, mnist, graph)
        network.head.load_state_dict(probe.head.state_dict())
    if e.distortion:
        generator = torch.Generator().manual_seed(e.draw)
        copies = [distorted(labelled.images, e.distortion, generator) for _ in range(COPIES)]
        labelled = Split(torch.cat([labelled.images, *copies]), labelled.labels.repeat(1 + COPIES))
    groups = [{"params": network.head.parameters(), "lr": e.head_rate}]
    if e.scheme == "frozen":  # encoded once: no gradient can reach the encoder, no statistic can change
        if graph and not e.distortion:  # which has the codes
            codes = torch.from_numpy(graph.codes)[some]
        else:
            codes = measures.infer(encoder, labelled.images)
        labelled = Split(codes, labelled.labels)
    else:
        scratch = replace(e.encoder, seed=1_000 + e.draw)  # a seed that no pre-trained encoder has
        encoder = build(scratch).encoder if e.scheme == "from_scratch" else deepcopy(encoder)
        network.encoder = encoder.requires_grad_(True)
        groups += [{"params": encoder.parameters(), "lr": e.encoder_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=e.weight_decay)
    objective = _classify_with_fixed_norm if e.fixed_norm else classify
    epochs = max(1, e.steps * batch_size // len(labelled.labels))
    fit(network, labelled, objective, optimizer, epochs=epochs, batch_size=batch_size, seed=e.draw)
    network.encoder = encoder
    return network.eval()


def _spread(e: Transfer, encoder: nn.Module, labelled: Split, graph: Graph) -> tuple[Any, float]:
    codes = measures.infer(encoder, labelled.images).numpy()
    return spread(graph, codes, labelled.labels.numpy(), e.alpha)


@alone()
def evaluate(e: Transfer, encoder: nn.Module, mnist: Data, known: View | None = None) -> Outcome:
    """Train on the labelled images by the experiment's scheme, and measure on its evaluation split.

    encoder: gives the scheme's `FEATURES`, (N, 1, 28, 28) -> (N, d). known: its `view`, computed unless it is
    given. Raises ValueError as `balanced_draw`, `build_graph` and `spread` do.
    """
    evaluation, labelled = getattr(mnist, e.split), labelled_images(e, mnist)
    codes, graph, votes_on = known or view(encoder, mnist, *view_options(e))
    if e.scheme in BASELINES:
        return _logistic(e, encoder, labelled, Split(codes, evaluation.labels), mnist.name)
    if graph and e.scheme in SPREADING:
        shares, unreached = _spread(e, encoder, labelled, graph)
        accuracy = measures.accuracy(nn.Identity(), torch.from_numpy(votes_on @ shares), evaluation.labels)
        return Outcome(accuracy, 1.0, 0.0, mnist.name, unreached)
    network, shift = fit_classifier(e, encoder, mnist, graph), 0.0
    after = codes if e.scheme == "frozen" else measures.infer(network.encoder, evaluation.images)
    if FEATURES[e.scheme] == "code":
        shift = ((after - codes).norm() / (codes - codes.mean(0)).norm()).item()
    accuracy = measures.accuracy(network.head, after, evaluation.labels)
    return Outcome(accuracy, measures.accuracy(network, *labelled), shift, mnist.name)


def _logistic(e: Transfer, encoder: nn.Module, labelled: Split, evaluation: Split, dataset: str) -> Outcome:
    from sklearn.linear_model import LogisticRegression  # as late as in measures

    x = measures.infer(encoder, labelled.images).numpy()
    scale = x.std(0).mean()  # one for all coordinates, so that one penalty fits codes and pixels
    model = LogisticRegression(C=1 / e.penalty, max_iter=2_000).fit(x / scale, labelled.labels)
    score = model.score(evaluation.images.numpy() / scale, evaluation.labels)
    return Outcome(score, model.score(x / scale, labelled.labels), 0.0, dataset)
