"""The benchmark runs, on any data and in any folder, and leaves nothing behind."""

import os
import subprocess
import sys

from mnistae import data


def test_the_benchmark_prints_its_tables(tmp_path):
    before = {path.name for path in (data.ROOT / "checkpoints").iterdir()}
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench",
        "--repeats",
        "1",
        "--images",
        "128",
        "--enough",
        "2500",
    ]
    environment = {**os.environ, "MNISTAE_DATA": "sample", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--sweeps"], cwd=data.ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| wall seconds, one network |" in done.stdout
    assert "2,500 images seen once by the study's recipe (test error 0.0" in done.stdout
    assert {path.name for path in (data.ROOT / "checkpoints").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir() if "joblib" not in path.name] == []
