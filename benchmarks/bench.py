"""The project's loop against the one of nearly every MNIST notebook, side by side in one run.

    python benchmarks/bench.py [--repeats 5] [--images 12800]

Prints Markdown tables of medians and ranges. Alternating repeats share whatever else the machine does, so
ratios can be trusted where seconds cannot.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from mnistae import data
from mnistae.data import Split
from mnistae.measures import reconstruction_mse
from mnistae.parallel import alone
from mnistae.runs import trained, trained_all
from mnistae.store import Store
from mnistae.study import BASE, SHORT
from mnistae.training import build, fit, reconstruct

BATCH = 64
PUBLIC_ERROR, PUBLIC_EPOCHS = 0.0158, 14  # the best public solution of the exercise at d = 10, and its epochs


def spent():
    """CPU seconds of this process and of its finished children (the loader's workers)."""
    return sum(os.times()[:4])


class Usual(Dataset):
    """What torchvision's MNIST does with each image: bytes in memory, a PIL image, a transform."""

    def __init__(self, split, transform):
        self.bytes, self.labels = split.images.mul(255).round().to(torch.uint8), split.labels
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, n):
        return self.transform(to_pil_image(self.bytes[n])), int(self.labels[n])


def conventional(images):
    """One epoch as nearly everyone writes it: PIL images, ToTensor, two workers, .item(), all cores."""
    few = Split(*(part[:images] for part in data.load().train))
    loader = DataLoader(Usual(few, transforms.ToTensor()), BATCH, shuffle=True, num_workers=2)
    network = build(BASE)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    network.train()
    running = 0.0
    for x, _ in loader:
        optimizer.zero_grad()
        loss = F.mse_loss(network(x), x)
        loss.backward()
        optimizer.step()
        running += loss.item()


def ours(images):
    """One epoch of `fit` on tensors in memory, one thread; same network, optimizer and batch size."""
    few = Split(*(part[:images] for part in data.load().train))
    network = build(BASE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    with alone():
        fit(network, few, reconstruct, optimizer, epochs=1, batch_size=BATCH, seed=0)


def timed(loop, images):
    """(wall seconds, CPU seconds) of one epoch."""
    wall, cpu = time.perf_counter(), spent()
    loop(images)
    return time.perf_counter() - wall, spent() - cpu


def side_by_side(workers, images):
    """Wall seconds of `workers` processes of ours at once, imports and data not counted."""
    code = "import sys; from benchmarks import bench; bench.one_of_many(int(sys.argv[1]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(images)],
            cwd=data.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(workers)
    ]  # fmt: skip
    for process in processes:
        process.stdout.readline()  # ready
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.stdout.readline()  # done
    wall = time.perf_counter() - start
    for process in processes:
        process.communicate()
    return wall


def one_of_many(images):
    """The other end of `side_by_side`: warm up, wait for the word, train, say so."""
    ours(BATCH * 4)
    print("ready", flush=True)
    sys.stdin.readline()
    ours(images)
    print("done", flush=True)


def to_quality(images):
    """Wall seconds and test error of `images` seen once by the study's recipe, on one thread."""
    with a_store() as store:
        start = time.perf_counter()
        run = trained(replace(SHORT, images=images), store, progress=False)
        seconds = time.perf_counter() - start
    return seconds, reconstruction_mse(run.network, data.load().test.images)


def cost_of_one(count):
    """CPU seconds of training a network, on average over a sweep of `count`."""
    configs = [replace(SHORT, images=6_400, seed=seed) for seed in range(count)]
    with a_store() as store:
        return sum(run.cpu_seconds for run in trained_all(configs, store, progress=False).values()) / count


@contextmanager
def a_store():
    """A store in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        yield Store(Path(folder), data.load().name)


def flops_per_image():
    """Multiplications and additions of one training step: forward, and twice that backward."""
    counted, network = 0, build(BASE)

    def count(layer, inputs, output):
        nonlocal counted
        if isinstance(layer, torch.nn.Linear):
            counted += layer.weight.numel()
        elif isinstance(layer, torch.nn.Conv2d):
            counted += layer.weight.numel() * output.shape[2] * output.shape[3]
        elif isinstance(layer, torch.nn.ConvTranspose2d):
            counted += layer.weight.numel() * inputs[0].shape[2] * inputs[0].shape[3]

    for layer in network.modules():
        layer.register_forward_hook(count)
    network.eval()(torch.zeros(1, 1, 28, 28))
    return counted * 2 * 3


def matmul_rate(n=1024, times=10):
    """FLOP/s of a large float32 matrix product on one thread."""
    with alone():
        a, b = torch.rand(n, n), torch.rand(n, n)
        a @ b
        start = time.perf_counter()
        for _ in range(times):
            a @ b
        return times * 2 * n**3 / (time.perf_counter() - start)


def summary(values, digits=1):
    """Median (least to most)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=12_800, help="images an epoch of the benchmark has")
    parser.add_argument("--enough", type=int, default=22_000, help="images that reach the public quality")
    parser.add_argument("--sweeps", type=int, nargs="*", default=[1, 4, 16], help="sizes of sweeps to time")
    options = parser.parse_args(argv)
    n, cores = options.images, os.cpu_count()
    data.load()
    ours(BATCH * 4), conventional(BATCH * 4)  # warm up
    usual, mine, single, together, rates, quality = [], [], [], [], [], []
    for _ in range(options.repeats):
        usual.append(timed(conventional, n))
        mine.append(timed(ours, n))
        single.append(side_by_side(1, n))
        together.append(side_by_side(cores, n))
        rates.append(matmul_rate())
        quality.append(to_quality(options.enough))
    print(f"{platform.processor() or platform.machine()}, {cores} cores, torch {torch.__version__}; ", end="")
    print(f"median (range) of {options.repeats} alternating repeats of {n:,} images, batches of {BATCH}\n")
    print("| | conventional loop | this project | ratio |\n|---|---|---|---|")
    for name, index in (("wall", 0), ("CPU", 1)):
        a, b = [row[index] for row in usual], [row[index] for row in mine]
        ratio = summary([x / y for x, y in zip(a, b, strict=True)], 2)
        print(f"| {name} seconds, one network | {summary(a)} | {summary(b)} | {ratio} |")
    a, b = [3600 / w for w, _ in usual], [3600 * cores / w for w in together]
    ratio = summary([y / x for x, y in zip(a, b, strict=True)], 2)
    print(f"| such epochs an hour, all {cores} cores | {summary(a, 0)} | {summary(b, 0)} | {ratio} |")
    gain = summary([cores * one / many for one, many in zip(single, together, strict=True)], 2)
    print(f"\n{cores} processes do {gain} times the work of one in the same time.")
    achieved = [n * flops_per_image() / w for _, w in mine]
    share = summary([100 * x / y for x, y in zip(achieved, rates, strict=True)], 0)
    print(f"A training step runs at {share} % of the FLOP/s of a large float32 matrix product on one thread.")
    seconds, (error, *_) = zip(*quality, strict=True)
    theirs = [PUBLIC_EPOCHS * w * 55_000 / n for w, _ in usual]
    sooner = summary([x / y for x, y in zip(theirs, seconds, strict=True)], 0)
    print(
        f"To a test error of {PUBLIC_ERROR} at d = 10, which public code reaches in {PUBLIC_EPOCHS} epochs "
        f"of such a loop ({summary(theirs, 0)} s at its rate): {summary(seconds)} s and "
        f"{options.enough:,} images seen once by the study's recipe (test error {error:.4f}), "
        f"{sooner} times sooner."
    )
    costs = ", ".join(f"{cost_of_one(count):.1f} s ({count})" for count in options.sweeps)
    print(f"CPU seconds a network in a sweep of so many: {costs}.")


if __name__ == "__main__":
    main()
