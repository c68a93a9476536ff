"""The one training loop, and trained networks by the dozen."""

import math
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import joblib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from mnistae import checkpoints, data
from mnistae.config import Config
from mnistae.muon import Muon
from mnistae.networks import AutoEncoder, Classifier, Decoder, Encoder, GaussianCode, Noise, spatial_sizes
from mnistae.parallel import in_parallel, one_thread

JUDGE_HIDDEN = 64  # units of the digit classifier's head
FASTEST = torch.channels_last  # an eighth faster here than the default order of a tensor's numbers

Network = AutoEncoder | Classifier
Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TrainingError(RuntimeError):
    """Training that gave no network: it diverged or collapsed, or there are other data. Nothing is saved."""


class Run(NamedTuple):
    """A config's trained network, in eval mode, and how it came about."""

    config: Config
    network: Network
    history: list[dict[str, float]]  # one {"train": loss, "validation": loss} an epoch
    cpu_seconds: float  # of training alone


def reconstruct(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
    """Mean squared error per pixel, pixels in [0, 1]."""
    return F.mse_loss(network(images), images)


def classify(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits, in nats per image."""
    return F.cross_entropy(network(inputs), labels)


def variational(kl_weight: float) -> Objective:
    """The objective of a variational auto-encoder: `reconstruct` plus the weighted divergence of codes."""
    return lambda network, *batch: reconstruct(network, *batch) + kl_weight * network.encoder[-1].kl


def fit(
    network: nn.Module,
    split: data.Split,
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
    are peaks: they rise over a quarter of the steps and fall to almost zero, both along a cosine. Batches are
    shuffled by `seed` alone.
    Raises TrainingError as soon as an epoch's loss is not finite.
    """
    inputs, labels = split
    steps = epochs * math.ceil(len(inputs) / batch_size)
    rise = 0.25 if steps != 4 else 0.3  # OneCycleLR divides by rise · steps - 1
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = OneCycleLR(optimizer, peaks, steps, pct_start=rise, cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    history, seconds = [], 0.0
    for epoch in tqdm(range(epochs), disable=not progress, leave=False, unit="epoch", file=sys.stderr):
        start = time.process_time()
        network.train()
        total = torch.zeros((), device=inputs.device)
        for batch in torch.randperm(len(inputs), generator=generator).to(inputs.device).split(batch_size):
            images = inputs[batch]
            if distortion:  # half of them: in the end the network is asked about undistorted digits
                half = len(batch) // 2
                images = torch.cat([data.distorted(images[:half], distortion, generator), images[half:]])
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


def optimizer_for(network: nn.Module, config: Config) -> Optimizer:
    """Muon or AdamW; weight decay on matrices and kernels alone."""
    adamw, rate = config.optimizer == "adamw", config.learning_rate
    matrices = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "lr": rate, "weight_decay": config.weight_decay}]
    groups += [{"params": vectors, "lr": rate if adamw else rate / 4, "weight_decay": 0.0}]  # Muon: by Adam
    return AdamW(groups) if adamw else Muon(groups)


def build(config: Config) -> Network:
    """The network that a config describes, with initial weights drawn from its seed."""
    d, layers = config.latent_dim, (config.channels, config.kernel_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = Encoder(2 * d if config.kl_weight else d, *layers)
        if config.task == "classify":
            return Classifier(encoder, d, JUDGE_HIDDEN)
        if config.kl_weight:
            encoder.append(GaussianCode())
        if config.noise:
            encoder.append(Noise(config.noise))
        return AutoEncoder(encoder, Decoder(d, *layers))


def trained(config: Config, device: str = "cpu", progress: bool = True) -> Run:
    """The run of exactly this config: loaded if its checkpoint exists, else trained and saved.

    device: "cpu", "cuda", "mps", where the network then lies; checkpoints serve them all. Raises
    CheckpointError for a damaged or foreign file, TrainingError if training diverged or collapsed, and as
    torch does for a device that is not here.
    """
    if not checkpoints.path(config).exists():
        content = train(config, data.load().name, device, progress)
        checkpoints.atomic_write(checkpoints.path(config), content)
    with torch.device("meta"):  # a blueprint: the file brings the weights
        network = build(config)
    weights, about = checkpoints.read(config, network.state_dict())
    network.load_state_dict(weights, assign=True)
    network.to(device).to(memory_format=FASTEST).eval().requires_grad_(False)
    return Run(config, network, about["history"], about["cpu_seconds"])


def train(config: Config, dataset: str, device: str, progress: bool = False) -> bytes:
    """Train, and return the content of the checkpoint, so that a worker elsewhere needs no common disk.

    dataset: the name that its data must have. Raises TrainingError for a network that diverged or collapsed,
    and for other data.
    """
    split, validation, _, name = data.load()
    if name != dataset:
        raise TrainingError(f"{platform.node()} has {name}, not {dataset}: see MNISTAE_DATA")
    split = data.Split(*(part[: config.images].to(device) for part in split))
    validation = data.Split(*(part.to(device) for part in validation))
    measure = reconstruct if config.task == "reconstruct" else classify
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(config.seed)  # for the noise on the code
        network = build(config).to(device).to(memory_format=FASTEST)
        try:
            history, seconds = fit(
                network,
                split,
                variational(config.kl_weight) if config.kl_weight else measure,
                optimizer_for(network, config),
                epochs=config.epochs,
                batch_size=config.batch_size,
                seed=config.seed,
                distortion=config.distortion,
                validate=lambda: _mean_loss(network, validation, measure),
                progress=progress,
            )
        except TrainingError as failure:
            raise TrainingError(f"{config} {failure}") from None
    error, constant = history[-1]["validation"], math.log(10)  # a guess among ten, or the mean image
    if config.task == "reconstruct":
        constant = (validation.images - split.images.mean(0)).square().mean().item()
    if not error < constant:
        said = f"validation error {error:.4f}; a constant answer has {constant:.4f}"
        raise TrainingError(f"{config} collapsed: {said}. Lower learning_rate or train for more epochs.")
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    about = {"history": history, "cpu_seconds": round(seconds, 1), "versions": versions, "device": device}
    return checkpoints.packed(config, network.state_dict(), about)


@torch.no_grad()
def _mean_loss(network: nn.Module, split: data.Split, objective: Objective) -> float:
    network.eval()
    parts = zip(split.images.split(500), split.labels.split(500), strict=True)
    return sum(objective(network, x, y).item() * len(x) for x, y in parts) / len(split.labels)


def trained_all(configs: Iterable[Config], device: str = "cpu", progress: bool = True) -> dict[Config, Run]:
    """The runs of many configs, missing ones trained side by side: one process a core, one thread each.

    Finished networks are saved at once, so an interrupted call goes on where it was. Processes come from
    joblib: inside `with joblib.parallel_config(backend="dask")` they are a cluster's, whose machines need
    the data but no common disk. Raises as `trained` and `in_parallel` do.
    """
    configs, dataset = list(dict.fromkeys(configs)), data.load().name
    missing = [config for config in configs if not checkpoints.path(config).exists()]
    missing.sort(key=cost, reverse=True)  # the costly first, so that no core has a long one left at the end
    processes = -1 if device == "cpu" else 1  # an accelerator is one worker
    if missing and progress:
        minutes = sum(map(cost, missing)) / 60 / joblib.effective_n_jobs(processes)
        what = f"{len(missing)} network(s) that {checkpoints.folder(dataset)} lacks"
        print(f"Training {what}: about {minutes:.0f} minutes, the longest first.", file=sys.stderr)
    contents = in_parallel(
        train, missing, dataset, device, progress=progress, unit="network", cost=cost, processes=processes
    )
    for config, content in contents:
        checkpoints.atomic_write(checkpoints.path(config), content)
    return {config: trained(config, device) for config in configs}


def cost(config: Config) -> float:
    """CPU seconds of training on the README's machine, roughly, by the work of the encoder's layers."""
    widths_in, sizes = (1, *config.channels[:-1]), spatial_sizes(len(config.channels))[1:]
    layers = zip(sizes, widths_in, config.channels, strict=True)
    # Multiplications, and a hundred for each activation written and read back.
    work = sum(size**2 * width * (width_in * config.kernel_size**2 + 100) for size, width_in, width in layers)
    return work * min(config.images, len(data.load().train.labels)) * config.epochs / 3.7e9
