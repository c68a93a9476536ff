"""Config, the one training loop, and trained networks by the dozen."""

import ctypes
import math
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from mnistae import checkpoints, data
from mnistae.networks import AutoEncoder, Classifier, Encoder, check_architecture, spatial_sizes

JUDGE_HIDDEN = 64  # hidden units of the digit classifier's head
FASTEST = torch.channels_last  # an eighth faster here than the default order of a tensor's numbers
_ALONE = threading.RLock()
LIMITS = {
    "learning_rate": (float, 1e-6, 10),
    "weight_decay": (float, 0, 10),
    "batch_size": (int, 2, 60_000),
    "epochs": (int, 1, 10_000),
    "distortion": (float, 0, 10),
    "images": (int, 2, 55_000),
    "seed": (int, 0, 2**32 - 1),
}


def check_ranges(record, limits: dict[str, tuple[type, float, float]]) -> None:
    """Raise TypeError or ValueError, naming field, value and range, unless each number lies in its range.

    record: a frozen dataclass. limits: field -> (int or float, least, largest). Fields become of that type,
    so that 0 and 0.0 are one record.
    """
    for name, (kind, low, high) in limits.items():
        value = getattr(record, name)
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            raise TypeError(f"{name}={value!r}: allowed is a number ({kind.__name__}) from {low} to {high}")
        if not low <= value <= high:
            raise ValueError(f"{name}={value}: allowed is {low} to {high}")
        object.__setattr__(record, name, kind(value))


@dataclass(frozen=True)
class Config:
    """All that decides one network's weights; also its key in tables and its checkpoint's name.

    task: "reconstruct" trains an AutoEncoder on the mean squared error per pixel, "classify" a Classifier
    on cross-entropy. optimizer: "muon" or "adamw". learning_rate: its peak; weight_decay: per unit of it,
    on matrices. distortion: of half of each batch, random and affine; 0 is none, 1 is about 3 degrees,
    3 % and a quarter of a pixel. images: how many training images are used, from the first.
    Raises ValueError or TypeError, naming field, value and range.
    """

    latent_dim: int = 10
    channels: tuple[int, ...] = (8, 32, 64, 88)
    kernel_size: int = 3
    task: str = "reconstruct"
    optimizer: str = "muon"
    learning_rate: float = 0.03
    weight_decay: float = 0.05
    batch_size: int = 64
    epochs: int = 6
    distortion: float = 0.0
    images: int = 55_000
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.channels, (tuple, list)):
            raise TypeError(f"channels={self.channels!r}: allowed is a tuple of widths such as (16, 32, 64)")
        object.__setattr__(self, "channels", tuple(self.channels))
        check_architecture(self.latent_dim, self.channels, self.kernel_size)
        check_ranges(self, LIMITS)
        for name, allowed in (("task", ("reconstruct", "classify")), ("optimizer", ("muon", "adamw"))):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: allowed is {' or '.join(map(repr, allowed))}")

    @property
    def name(self) -> str:
        """Every field, so that no two configs share a file."""
        widths = "-".join(map(str, self.channels))
        return (
            f"{self.task}_d{self.latent_dim}_c{widths}_k{self.kernel_size}_{self.optimizer}{self.learning_rate!r}"
            f"_w{self.weight_decay!r}_b{self.batch_size}_e{self.epochs}_x{self.distortion!r}_n{self.images}"
            f"_s{self.seed}"
        )


class Run(NamedTuple):
    """A trained network in eval mode, and how it came about.

    history: one {"train": loss, "validation": loss} an epoch. cpu_seconds: of training alone,
    without the looks at validation images.
    """

    network: nn.Module
    history: list[dict[str, float]]
    cpu_seconds: float


class TrainingError(RuntimeError):
    """A network that diverged or collapsed; it is not saved."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during parallel work; a notebook shows its message alone."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [str(self)]


Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]


def reconstruct(network: nn.Module, images: Tensor, _labels: Tensor) -> Tensor:
    """Mean squared error per pixel, pixels in [0, 1]."""
    return F.mse_loss(network(images), images)


def classify(network: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the logits, in nats per image."""
    return F.cross_entropy(network(inputs), labels)


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
) -> list[dict[str, float]]:
    """The one loop: train `network` in place on tensors in memory, and return its history, a row an epoch.

    split.images: (N, ...) whatever the network takes. The learning rates of `optimizer` are peaks: they rise
    over a quarter of the steps and fall to zero along a cosine. Batches are shuffled by `seed` alone.
    Raises TrainingError as soon as an epoch's loss is not finite.
    """
    inputs, labels = split
    steps = epochs * math.ceil(len(inputs) / batch_size)
    rise = 0.25 if steps != 4 else 0.3  # OneCycleLR divides by rise · steps - 1
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = OneCycleLR(optimizer, peaks, steps, pct_start=rise, cycle_momentum=False)
    chance = torch.Generator().manual_seed(seed)
    history = []
    for epoch in tqdm(range(epochs), disable=not progress, leave=False, unit="epoch", file=sys.stderr):
        network.train()
        total = torch.zeros((), device=inputs.device)
        for batch in torch.randperm(len(inputs), generator=chance).to(inputs.device).split(batch_size):
            images = inputs[batch]
            if distortion:  # half of them: in the end the network is asked about undistorted digits
                half = len(batch) // 2
                images = torch.cat([distorted(images[:half], distortion, chance), images[half:]])
            loss = objective(network, images, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(batch)
        row = {"train": total.item() / len(inputs)}
        if not math.isfinite(row["train"]):
            raise TrainingError(f"diverged: the loss of epoch {epoch + 1} is {row['train']}")
        if validate:
            row["validation"] = validate()
        history.append(row)
    network.eval()
    return history


def distorted(images: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Each image under its own random affine map, as `Config` describes. images: (N, 1, 28, 28)."""
    spread = torch.tensor([[0.03, 0.05, 0.02], [0.05, 0.03, 0.02]]) * strength
    maps = (torch.eye(2, 3) + torch.randn(len(images), 2, 3, generator=chance) * spread).to(images.device)
    return F.grid_sample(images, F.affine_grid(maps, images.shape, align_corners=False), align_corners=False)


def optimizer_for(network: nn.Module, config: Config) -> Optimizer:
    """Muon (Jordan et al., 2024) on matrices and kernels with AdamW on vectors, or AdamW on all.

    The library's Muon iterates in bfloat16, whose products run 90 times slower than float32 ones on a
    processor without bfloat16 units (measured, AVX2); float32 serves all. Three iterations do as well as 5.
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim == 1]
    decayed = {"params": matrices, "lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW([decayed, {"params": vectors, "weight_decay": 0.0}], lr=config.learning_rate)

    import pytorch_optimizer  # here, since only training needs it and its import takes a while
    from pytorch_optimizer.optimizer.utils import zero_power_via_newton_schulz_5

    class Muon(pytorch_optimizer.Muon):
        @staticmethod
        def _orthogonalize(group, updates):
            return [zero_power_via_newton_schulz_5(u.flatten(1), 3, dtype=torch.float32) for u in updates]

    rest = {"params": vectors, "lr": config.learning_rate / 4, "weight_decay": 0.0}
    return Muon([{**decayed, "use_muon": True}, {**rest, "use_muon": False}], foreach=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, and one caller at a time, since threads and random state are the process's.

    Sums come out in one order then, so weights do not depend on what runs beside them.
    """
    with _ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with suppress(OSError, AttributeError):  # glibc alone: keep freed activations, not fault them in anew
            mallopt = ctypes.CDLL("libc.so.6").mallopt
            mallopt(-1, 2**30), mallopt(-3, 2**25)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def build(config: Config) -> nn.Module:
    """The network that a config describes, with initial weights drawn from its seed (on the CPU)."""
    architecture = (config.latent_dim, config.channels, config.kernel_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.task == "classify":
            return Classifier(Encoder(*architecture), config.latent_dim, JUDGE_HIDDEN)
        return AutoEncoder(*architecture)


def trained(config: Config, device: str = "cpu", progress: bool = True) -> Run:
    """The run of exactly this config: loaded if its checkpoint exists, else trained and saved.

    device: "cpu", "cuda", "mps"; checkpoints serve them all. Raises ValueError for a device that is not here,
    CheckpointError for a damaged or foreign file, TrainingError if training diverged or collapsed.
    """
    _check_device(device)
    dataset = data.load().name
    path = _path(config, dataset)
    if not path.exists():
        checkpoints.atomic_write(path, _checkpoint(config, dataset, device, progress))
    network = build(config)
    weights, about = checkpoints.read(path, _identity(config, dataset), network.state_dict())
    network.load_state_dict(weights)
    network.to(device, memory_format=FASTEST).eval().requires_grad_(False)
    return Run(network, about["history"], about["cpu_seconds"])


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise ValueError(f"device={device!r} cannot be used ({error}): 'cpu' always can") from None


def _path(config: Config, dataset: str) -> Path:
    return checkpoints.folder(dataset) / f"{config.name}.safetensors"


def _identity(config: Config, dataset: str) -> dict:
    return {**asdict(config), "channels": list(config.channels), "dataset": dataset}


def _checkpoint(config: Config, dataset: str, device: str, progress: bool) -> bytes:
    """Train, and return the content of the checkpoint, so that a worker elsewhere needs no common disk."""
    if data.load().name != dataset:
        raise TrainingError(f"{platform.node()} has {data.load().name}, not {dataset}: see MNISTAE_DATA")
    network, about = _train(config, device, progress)
    return checkpoints.packed(network.state_dict(), {"config": _identity(config, dataset), **about})


@one_thread()
def _train(config: Config, device: str, progress: bool) -> tuple[nn.Module, dict]:
    train, validation, _, _ = data.load()
    train = data.Split(*(part[: config.images].to(device) for part in train))
    validation = data.Split(*(part.to(device) for part in validation))
    network = build(config).to(device, memory_format=FASTEST)
    objective = reconstruct if config.task == "reconstruct" else classify
    watching = 0.0

    def validate() -> float:
        nonlocal watching
        start = time.process_time()
        loss = _mean_loss(network, validation, objective)
        watching += time.process_time() - start
        return loss

    start = time.process_time()
    history = fit(
        network,
        train,
        objective,
        optimizer_for(network, config),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        distortion=config.distortion,
        validate=validate,
        progress=progress,
    )
    seconds = time.process_time() - start - watching
    error, yardstick, words = history[-1]["validation"], math.log(10), "a guess among ten"
    if config.task == "reconstruct":
        mean_image = train.images.mean(0, keepdim=True).expand_as(validation.images)
        yardstick, words = F.mse_loss(mean_image, validation.images).item(), "the mean image"
    if not error < yardstick:
        raise TrainingError(
            f"{config} collapsed: validation error {error:.4f}, while {words} has {yardstick:.4f}. "
            f"Lower learning_rate or train for more epochs."
        )
    versions = {name: version(name) for name in ("torch", "torchvision", "pytorch_optimizer", "numpy")}
    return network, {
        "history": history,
        "cpu_seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **versions},
        "device": device,
    }


@torch.no_grad()
def _mean_loss(network: nn.Module, split: data.Split, objective: Objective) -> float:
    network.eval()
    parts = zip(split.images.split(500), split.labels.split(500), strict=True)
    return sum(objective(network, x, y).item() * len(x) for x, y in parts) / len(split.labels)


def trained_all(configs: Iterable[Config], device: str = "cpu", progress: bool = True) -> dict[Config, Run]:
    """The runs of many configs, missing ones trained side by side: one process a core, one thread each.

    Finished networks are saved at once, so an interrupted call goes on where it was. Processes come from
    joblib: inside `with joblib.parallel_config(backend="dask")` they are a cluster's, whose machines need
    the data but no common disk. Raises as `trained` does, and Interrupted at Ctrl-C.
    """
    _check_device(device)
    configs, dataset = list(dict.fromkeys(configs)), data.load().name
    missing = [config for config in configs if not _path(config, dataset).exists()]
    if missing and progress:
        print(
            f"Training {len(missing)} network(s) that {checkpoints.folder(dataset)} lacks.", file=sys.stderr
        )
    missing.sort(key=cost, reverse=True)  # the costly first, so that no core has a long one left at the end
    processes = -1 if device == "cpu" else 1  # an accelerator is one worker
    contents = in_parallel(
        _checkpoint, missing, dataset, device, False,
        progress=progress, unit="network", cost=cost, processes=processes,
    )  # fmt: skip
    for config, content in contents:
        checkpoints.atomic_write(_path(config, dataset), content)
    return {config: trained(config, device, progress=False) for config in configs}


def in_parallel(
    job: Callable,
    items: list,
    *rest,
    progress: bool,
    unit: str,
    cost: Callable = lambda item: 1,
    processes: int = -1,
) -> Iterator:
    """Yield (item, job(item, *rest)) for each item as they finish, with one progress bar.

    cost: of an item in any unit, so that the time left is judged by work and not by number.
    processes: how many side by side, -1 for one a core. Raises Interrupted at Ctrl-C.
    """
    if not items:
        return  # without starting processes
    workers = joblib.Parallel(n_jobs=processes, return_as="generator_unordered")
    results = workers(
        joblib.delayed(_with_index)(job, index, item, *rest) for index, item in enumerate(items)
    )
    layout = "{desc} {percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left"
    done = 0
    try:
        with tqdm(
            desc=f"0 of {len(items)} {unit}s",
            total=sum(map(cost, items)),
            disable=not progress,
            leave=False,
            bar_format=layout,
        ) as bar:
            for done, (index, result) in enumerate(results, 1):
                bar.set_description(f"{done} of {len(items)} {unit}s", refresh=False)
                bar.update(cost(items[index]))
                yield items[index], result
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: {done} of {len(items)} {unit}s are finished and kept. Run again to go on."
        ) from None


def _with_index(job: Callable, index: int, item, *rest) -> tuple:
    return index, job(item, *rest)


def cost(config: Config) -> float:
    """Relative training time: multiplications, and a hundred for each activation written and read back."""
    sizes, widths = spatial_sizes(len(config.channels)), (1, *config.channels)
    layers = range(len(config.channels))
    products = sum(sizes[i + 1] ** 2 * widths[i] * widths[i + 1] for i in layers) * config.kernel_size**2
    activations = sum(sizes[i + 1] ** 2 * widths[i + 1] for i in layers)
    return (products + 100 * activations) * config.images * config.epochs
