"""What stands in two places must agree: README and results, lock file and install paths, map and house."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
RESULTS = ROOT / "report" / "results.json"
README = (ROOT / "README.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()


@pytest.mark.skipif(not RESULTS.exists(), reason="no results yet")
def test_readme_table_is_made_from_the_results():
    import build

    table = build.result_table(json.loads(RESULTS.read_text()))
    assert f"{build.TABLE_START}\n{table}\n{build.TABLE_END}" in README


@pytest.mark.skipif(not RESULTS.exists(), reason="no results yet")
def test_committed_results_are_mnist_s():
    assert json.loads(RESULTS.read_text())["dataset"] == "MNIST"


def test_every_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_pin_is_exact_and_hashed():
    requirements = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 100
    for requirement in requirements:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+", requirement), requirement[:60]
        assert "--hash=sha256:" in requirement, requirement[:60]
    assert "--no-strip-extras" in LOCK, "pip would look for a newer release of what is required with extras"
    assert "torch==2.13.0 " not in LOCK, "its CPU build cannot load torchvision"


def test_conda_installs_the_same_lock_file():
    environment = (ROOT / "environment.yml").read_text()
    assert "- --require-hashes" in environment
    assert "- -r requirements.lock" in environment


def test_the_map_names_every_room():
    import mnistae

    rooms = {path.stem for path in (ROOT / "mnistae").glob("[a-z]*.py")}
    assert set(re.findall(r"^    (\w+)  +\S", mnistae.__doc__, re.MULTILINE)) == rooms


def test_rooms_import_only_whom_they_may():
    allowed = {
        "data": set(), "networks": set(), "measures": set(), "figures": set(), "sliders": set(),
        "checkpoints": {"data"},
        "training": {"checkpoints", "data", "networks"},
        "transfer": {"checkpoints", "data", "measures", "networks", "training"},
        "study": {"checkpoints", "data", "training", "transfer"},
        "results": {"checkpoints", "data"},
    }  # fmt: skip
    for path in (ROOT / "mnistae").glob("[a-z]*.py"):
        code = path.read_text()
        imported = set(re.findall(r"^\s*from mnistae\.(\w+) import", code, re.MULTILINE))
        for names in re.findall(r"^\s*from mnistae import (.+)$", code, re.MULTILINE):
            imported |= set(names.split(", "))
        assert imported <= allowed[path.stem], path.name


def test_nothing_loads_a_pickle_or_evaluates_text():
    dangerous = r"torch\.load|pickle|\beval\(|\bexec\(|shell=True|allow_pickle=True"
    for path in [*(ROOT / "mnistae").glob("*.py"), *(ROOT / "report").glob("*.py")]:
        code = re.sub(r"#.*|network\.eval\(\)|\.eval\(\)", "", path.read_text())
        assert not re.search(dangerous, code), path.name
