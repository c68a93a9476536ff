"""The training loop, and one network trained by its config. No files: data come in, weights go out."""

import math
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from mnistae import networks
from mnistae.config import Config
from mnistae.data import Data, Split, distorted
from mnistae.muon import Muon
from mnistae.parallel import alone

CLASSIFIER_HIDDEN = 64  # units of the digit classifier's head
MEMORY_FORMAT = torch.channels_last  # an eighth faster here than torch's default

Network = networks.AutoEncoder | networks.Classifier
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TrainingError(RuntimeError):
    """Training that gave no network: it diverged or collapsed. Nothing is kept."""


class Trained(NamedTuple):
    """What training gives: plain data, which can be sent to another process or written to a file."""

    weights: dict[str, Tensor]  # on the CPU
    history: list[dict[str, float]]  # one {"train": loss, "validation": loss} per epoch
    cpu_seconds: float  # of training alone
    made_with: dict[str, str]  # versions, kind of processor, device


def reconstruct(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
    """Mean squared error per pixel, pixels in [0, 1]."""
    return F.mse_loss(network(images), images)


def classify(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits, in nats per image."""
    return F.cross_entropy(network(inputs), labels)


def reconstruct_l1(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
    """Mean absolute error per pixel, pixels in [0, 1]."""
    return F.l1_loss(network(images), images)


def variational(kl_weight: float) -> Objective:
    """The objective of a variational auto-encoder: `reconstruct` plus the weighted KL divergence of codes."""
    return lambda network, *batch: reconstruct(network, *batch) + kl_weight * network.encoder[-1].kl


def fit(
    network: nn.Module,
    split: Split,
    objective: Objective,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    distortion: float = 0.0,
    validate: Callable[[], float] | None = None,
    progress: bool = False,
) -> tuple[list[dict[str, float]], float]:
    """The one loop: train `network` in place on tensors in memory. Returns its history and CPU seconds.

    split.images: (N, ...) whatever the network takes; split.labels: (N,). The learning rates of `optimizer`
    are peaks: they rise over a quarter of the steps and then fall to almost zero, both along a cosine
    (OneCycleLR). `seed` alone decides the order of the images.
    Raises TrainingError as soon as an epoch's loss is not finite.
    """
    inputs, labels = split
    steps = epochs * math.ceil(len(inputs) / batch_size)
    pct_start = 0.25 if steps != 4 else 0.3  # OneCycleLR divides by pct_start · steps - 1
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = OneCycleLR(optimizer, peaks, steps, pct_start=pct_start, cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    history, seconds = [], 0.0
    for epoch in tqdm(range(epochs), disable=not progress, leave=False, unit="epoch", file=sys.stderr):
        start = time.process_time()
        network.train()
        total = torch.zeros((), device=inputs.device)
        for batch in torch.randperm(len(inputs), generator=generator).to(inputs.device).split(batch_size):
            images = inputs[batch]
            if distortion:  # only half of them, because the network is tested on undistorted digits
                half = len(batch) // 2
                images = torch.cat([distorted(images[:half], distortion, generator), images[half:]])
            loss = objective(network, images, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(batch)
        row = {"train": total.item() / len(inputs)}
        seconds += time.process_time() - start
        if not math.isfinite(row["train"]):
            raise TrainingError(f"diverged: the loss of epoch {epoch + 1} is {row['train']}")
        if validate:
            row["validation"] = validate()
        history.append(row)
    network.eval()
    return history, seconds


def fit_by(config: Config, network: nn.Module, split: Split, objective: Objective, **options: Any) -> Any:
    """`fit` with the optimizer and the settings of a config; it returns and raises what `fit` does.

    options: further ones of `fit`. The network's memory format becomes MEMORY_FORMAT.
    """
    optimizer = optimizer_for(network.to(memory_format=MEMORY_FORMAT), config)
    options |= {name: getattr(config, name) for name in ("epochs", "batch_size", "seed", "distortion")}
    return fit(network, split, objective, optimizer, **options)


def optimizer_for(network: nn.Module, config: Config) -> Optimizer:
    """Muon or AdamW, with weight decay on matrices and kernels alone."""
    adamw, rate = config.optimizer == "adamw", config.learning_rate
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "lr": rate, "weight_decay": config.weight_decay}]
    groups += [{"params": vectors, "lr": rate if adamw else rate / 4, "weight_decay": 0.0}]  # Muon: by Adam
    return AdamW(groups) if adamw else Muon(groups)


def assembled(config: Config) -> Network:
    """The network that a config describes; its initial weights come from torch's global generator."""
    d, layers = config.latent_dim, (config.channels, config.kernel_size)
    kind = networks.Encoder if config.downsampling == "stride" else networks.PoolingEncoder
    encoder = kind(2 * d if config.kl_weight else d, *layers)
    if config.task == "classify":
        return networks.Classifier(encoder, d, CLASSIFIER_HIDDEN)
    generator = torch.Generator().manual_seed(config.seed)
    if config.kl_weight:
        encoder.append(networks.GaussianCode(generator))
    if config.noise:
        encoder.append(networks.Noise(config.noise, generator))
    return networks.AutoEncoder(encoder, networks.Decoder(d, *layers))


def build(config: Config) -> Network:
    """The network that a config describes, in float32 on the CPU; its seed decides the initial weights."""
    with alone(), torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(config.seed)  # torch's layers take no generator of their own
        return assembled(config)


@torch.inference_mode(False)  # or its weights could never be trained
def restored(config: Config, weights: dict[str, Tensor]) -> Network:
    """The network with these weights, in eval mode and without gradients. It touches no random generator.

    Raises ValueError, in torch's words, if names or shapes are not those of the config's network.
    """
    with torch.device("meta"):  # only shapes: the weights are given
        network = assembled(config)
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(error) from None
    return network.to(memory_format=MEMORY_FORMAT).eval().requires_grad_(False)


def train(config: Config, mnist: Data, device: str = "cpu", progress: bool = False) -> Trained:
    """Train the network of a config on mnist.train; mnist.validation only measures, mnist.test is not read.

    device: "cpu", "cuda", "mps". Raises TrainingError if the network diverged, or collapsed to a constant
    answer; for a device that is not there, what torch raises.
    """
    split = Split(*(part[: config.images].to(device) for part in mnist.train))
    validation = Split(*(part.to(device) for part in mnist.validation))
    measure: Objective = reconstruct if config.task == "reconstruct" else classify
    objective = reconstruct_l1 if config.loss == "l1" else measure
    if config.kl_weight:
        objective = variational(config.kl_weight)
    with alone():
        network = build(config).to(device)
        validate = partial(_mean_loss, network, validation, measure)
        try:
            history, seconds = fit_by(config, network, split, objective, validate=validate, progress=progress)
        except TrainingError as failure:
            raise TrainingError(f"{config} {failure}") from None
    constant = math.log(10)  # a guess among ten digits, or the mean image
    if config.task == "reconstruct":
        constant = (validation.images - split.images.mean(0)).square().mean().item()
    if not (error := history[-1]["validation"]) < constant:
        said = f"validation error {error:.4f}; a constant answer has {constant:.4f}"
        raise TrainingError(f"{config} collapsed: {said}. Lower learning_rate or train for more epochs.")
    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    made_with = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    made_with |= {"processor": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"}
    return Trained(weights, history, round(seconds, 1), made_with)


@torch.no_grad()
def _mean_loss(network: nn.Module, split: Split, objective: Objective) -> float:
    network.eval()
    parts = zip(split.images.split(500), split.labels.split(500), strict=True)
    return sum(objective(network, x, y).item() * len(x) for x, y in parts) / len(split.labels)


def cost(config: Config, available: int = 55_000) -> float:
    """CPU seconds of training on the README's machine, roughly, by the work of the encoder's layers.

    available: training images that the data have.
    """
    sizes, kernel = networks.spatial_sizes(len(config.channels))[1:], config.kernel_size**2
    layers = zip(sizes, pairwise((1, *config.channels)), strict=True)
    # Multiplications, and a hundred for each activation written and read back.
    work = sum(size**2 * width * (width_in * kernel + 100) for size, (width_in, width) in layers)
    return work * min(config.images, available) * config.epochs / 3.7e9
