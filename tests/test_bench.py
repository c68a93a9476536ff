"""The benchmark runs, on any data and in any folder, and leaves nothing behind."""

import os
import subprocess
import sys

from mnistae import data


def test_the_benchmark_prints_its_tables():
    before = {path.name for path in (data.ROOT / "checkpoints").iterdir()}
    options = ["--repeats", "1", "--images", "128", "--enough", "2500", "--sweeps"]
    command = [sys.executable, "-m", "benchmarks.bench", *options]
    settings = {"cwd": data.ROOT, "env": os.environ | {"MNISTAE_DATA": "sample"}}
    done = subprocess.run(command, **settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| wall seconds, one network |" in done.stdout
    assert "2,500 images seen once by the study's recipe (test error 0.0" in done.stdout
    assert {path.name for path in (data.ROOT / "checkpoints").iterdir()} == before
