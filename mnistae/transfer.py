"""Classifiers from tens of labels: one experiment, given an encoder and data. No files."""

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnistae import measures
from mnistae.config import Scheme, Transfer
from mnistae.data import Data, Split, balanced_draw, distorted
from mnistae.networks import Classifier, Noise
from mnistae.parallel import alone
from mnistae.training import build, classify, fit

SCHEMES: tuple[Scheme, ...] = ("frozen", "fine_tuned", "from_scratch")  # those that end in a network
BASELINES: tuple[Scheme, ...] = ("logistic_code", "logistic_pca", "logistic_pixels")
FEATURES: dict[Scheme, str] = {  # what each scheme reads of an image
    "frozen": "code",
    "fine_tuned": "code",
    "from_scratch": "pixels",
    "logistic_code": "code",
    "logistic_pca": "pca",
    "logistic_pixels": "pixels",
}
COPIES = 24  # distorted ones of each labelled image, where there are any


class Outcome(NamedTuple):
    """What an experiment measures."""

    accuracy: float  # on the images of the evaluation split
    train_accuracy: float  # on the labelled images
    code_shift: float  # how far fine-tuning moved the codes, as a share of their spread; else 0
    dataset: str  # the name of the data


def _classify_with_fixed_norm(network: Any, inputs: Tensor, labels: Tensor) -> Tensor:
    for layer in network.encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()  # keeps its statistics: those of a few dozen images are poor
    return classify(network, inputs, labels)


def labelled_images(experiment: Transfer, mnist: Data) -> Split:
    """The training images whose labels the experiment may use. Raises ValueError as `balanced_draw` does."""
    chosen = balanced_draw(mnist.train.labels, experiment.labels_per_class, experiment.draw)
    return Split(mnist.train.images[chosen], mnist.train.labels[chosen])


def fit_classifier(experiment: Transfer, encoder: nn.Module, mnist: Data) -> Classifier:
    """The classifier that an experiment ends with, in eval mode.

    encoder: the pre-trained one, (N, 1, 28, 28) -> (N, d). Fine-tuning changes it, so hand over a copy;
    from_scratch builds its own. Raises ValueError for a logistic scheme.
    """
    e = experiment
    if e.scheme in BASELINES:
        raise ValueError(f"scheme={e.scheme!r} has no network: allowed is one of {SCHEMES}")
    labelled, batch_size = labelled_images(e, mnist), 10 * e.labels_per_class
    with alone():
        state, generator = torch.get_rng_state(), torch.Generator()
        torch.default_generator.manual_seed(e.draw)
        network = Classifier(nn.Identity(), e.encoder.latent_dim, e.hidden)  # the same head for every scheme
        generator.set_state(torch.get_rng_state())  # the noise goes on where the initial weights end
        torch.set_rng_state(state)
        network.head.insert(0, Noise(e.noise, generator))
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


def evaluate(experiment: Transfer, encoder: nn.Module, mnist: Data, codes: Tensor | None = None) -> Outcome:
    """Train on the labelled images by the experiment's scheme, and measure on its evaluation split.

    encoder: gives the scheme's `FEATURES`, (N, 1, 28, 28) -> (N, d); fine-tuning changes it. codes: those of
    the evaluation split, if they are known. Raises ValueError as `balanced_draw` does.
    """
    e, evaluation = experiment, getattr(mnist, experiment.split)
    codes = measures.infer(encoder, evaluation.images) if codes is None else codes
    if e.scheme in BASELINES:
        return _logistic(e, encoder, mnist, Split(codes, evaluation.labels))
    network, shift = fit_classifier(e, encoder, mnist), 0.0
    with alone():
        after = codes if e.scheme == "frozen" else measures.infer(network.encoder, evaluation.images)
        if e.scheme == "fine_tuned":
            shift = ((after - codes).norm() / (codes - codes.mean(0)).norm()).item()
        accuracy = measures.accuracy(network.head, after, evaluation.labels)
        labelled = labelled_images(e, mnist)
        return Outcome(accuracy, measures.accuracy(network, *labelled), shift, mnist.name)


def _logistic(e: Transfer, encoder: nn.Module, mnist: Data, evaluation: Split) -> Outcome:
    from sklearn.linear_model import LogisticRegression  # as late as in measures

    labelled = labelled_images(e, mnist)
    x = measures.infer(encoder, labelled.images).numpy()
    scale = x.std(0).mean()  # one for all coordinates, so that one penalty fits codes and pixels
    model = LogisticRegression(C=1 / e.penalty, max_iter=2_000).fit(x / scale, labelled.labels)
    score = model.score(evaluation.images.numpy() / scale, evaluation.labels)
    return Outcome(score, model.score(x / scale, labelled.labels), 0.0, mnist.name)
