"""Classifiers from tens of labels: one experiment, given an encoder and data. No files."""

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
    "frozen": "code",
    "fine_tuned": "code",
    "from_scratch": "pixels",
    "probe_then_fine_tuned": "code",
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


class Reach(NamedTuple):
    """A graph of training images, and how each image of the evaluation split sees it."""

    graph: Graph
    votes: Any  # (M, N), as of `spreading.votes`


def reach(encoder: nn.Module, nodes: int, neighbours: int, mnist: Data, codes: Tensor) -> Reach:
    """What label spreading needs of an encoder, the same for any labels. codes: of the evaluation split."""
    graph = build_graph(measures.infer(encoder, mnist.train.images[:nodes]).numpy(), neighbours)
    return Reach(graph, votes(graph, codes.numpy()))


def spreads(experiment: Transfer) -> bool:
    """Whether labels are spread on a graph."""
    return experiment.scheme in SPREADING or experiment.teacher != "labels"


def _classify_with_fixed_norm(network: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    for layer in network.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # keeps its statistics: those of a few dozen images are poor
    return classify(network, inputs, labels)


def labelled_images(experiment: Transfer, mnist: Data) -> Split:
    """The training images whose labels the experiment may use. Raises ValueError as `balanced_draw` does."""
    chosen = balanced_draw(mnist.train.labels, experiment.labels_per_class, experiment.draw)
    return Split(mnist.train.images[chosen], mnist.train.labels[chosen])


def fit_classifier(
    experiment: Transfer, encoder: nn.Module, mnist: Data, graph: Graph | None = None
) -> Classifier:
    """The classifier that an experiment ends with, in eval mode.

    encoder: the pre-trained one, (N, 1, 28, 28) -> (N, d). Fine-tuning changes it, so hand over a copy;
    from_scratch builds its own. graph: of its codes, if spread labels teach. Raises ValueError for a scheme
    that has no network.
    """
    e = experiment
    if e.scheme not in SCHEMES:
        raise ValueError(f"scheme={e.scheme!r} has no network: allowed is one of {SCHEMES}")
    labelled, batch_size = labelled_images(e, mnist), e.batch_size or 10 * e.labels_per_class
    if graph:
        shares, _ = _spread(e, encoder, labelled, graph)
        targets = shares if e.teacher == "spread_soft" else shares.argmax(1)
        some = torch.randperm(len(targets), generator=torch.Generator().manual_seed(e.draw))
        some = some[: e.steps * batch_size]
        labelled = Split(mnist.train.images[some], targets[some])
    head = None
    if e.scheme == "probe_then_fine_tuned":
        head = fit_classifier(replace(e, scheme="frozen"), encoder, mnist, graph).head.state_dict()
    with alone():
        state, generator = torch.get_rng_state(), torch.Generator()
        torch.default_generator.manual_seed(e.draw)
        network = Classifier(nn.Identity(), e.encoder.latent_dim, e.hidden)  # the same head for every scheme
        generator.set_state(torch.get_rng_state())  # the noise goes on where the initial weights end
        torch.set_rng_state(state)
        network.head.insert(0, Noise(e.noise, generator))
        if head:
            network.head.load_state_dict(head)
        if e.scheme == "from_scratch":  # a seed that no pre-trained encoder has
            encoder = build(replace(e.encoder, seed=1_000 + e.draw)).encoder
        if e.distortion:
            own = torch.Generator().manual_seed(e.draw)
            copies = [distorted(labelled.images, e.distortion, own) for _ in range(COPIES)]
            labelled = Split(torch.cat([labelled.images, *copies]), labelled.labels.repeat(1 + COPIES))
        groups = [{"params": network.head.parameters(), "lr": e.head_rate}]
        if e.scheme == "frozen":  # encoded once: no gradient can reach the encoder, no statistic can change
            labelled = Split(measures.infer(encoder, labelled.images), labelled.labels)
        else:
            network.encoder = encoder.requires_grad_(True)
            groups += [{"params": encoder.parameters(), "lr": e.encoder_rate}]
        optimizer = torch.optim.AdamW(groups, weight_decay=e.weight_decay)
        objective = _classify_with_fixed_norm if e.fixed_norm else classify
        epochs = max(1, e.steps * batch_size // len(labelled.labels))
        fit(network, labelled, objective, optimizer, epochs=epochs, batch_size=batch_size, seed=e.draw)
    network.encoder = encoder
    return network.eval()


def _spread(e: Transfer, encoder: nn.Module, labelled: Split, graph: Graph) -> tuple[Tensor, float]:
    codes = measures.infer(encoder, labelled.images).numpy()
    shares, unreached = spread(graph, codes, labelled.labels.numpy(), e.alpha)
    return torch.from_numpy(shares), unreached


def evaluate(
    experiment: Transfer,
    encoder: nn.Module,
    mnist: Data,
    codes: Tensor | None = None,
    known: Reach | None = None,
) -> Outcome:
    """Train on the labelled images by the experiment's scheme, and measure on its evaluation split.

    encoder: gives the scheme's `FEATURES`, (N, 1, 28, 28) -> (N, d); fine-tuning changes it. codes: those of
    the evaluation split; known: their `reach`. Both are computed unless they are given. Raises ValueError as
    `balanced_draw`, `build_graph` and `spread` do.
    """
    e, evaluation, labelled = experiment, getattr(mnist, experiment.split), labelled_images(experiment, mnist)
    codes = measures.infer(encoder, evaluation.images) if codes is None else codes
    if spreads(e) and known is None:
        known = reach(encoder, e.nodes, e.neighbours, mnist, codes)
    if e.scheme in BASELINES:
        return _logistic(e, encoder, labelled, Split(codes, evaluation.labels), mnist.name)
    if known and e.scheme in SPREADING:
        shares, unreached = _spread(e, encoder, labelled, known.graph)
        right = torch.from_numpy(known.votes @ shares.numpy()).argmax(1) == evaluation.labels
        return Outcome(right.double().mean().item(), 1.0, 0.0, mnist.name, unreached)
    network, shift = fit_classifier(e, encoder, mnist, known and known.graph), 0.0
    with alone():
        after = codes if e.scheme == "frozen" else measures.infer(network.encoder, evaluation.images)
        if FEATURES[e.scheme] == "code" and e.scheme != "frozen":
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
