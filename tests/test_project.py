"""What stands in two places must agree: README and results, lock file and install paths, map and house."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import mnistae

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
RESULTS = ROOT / "report" / "results.json"
README = (ROOT / "README.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.skipif(not RESULTS.exists(), reason="no results yet")
def test_readme_table_is_made_from_the_results():
    import build

    table = build.result_table(json.loads(RESULTS.read_text()))
    assert f"{build.TABLE_START}\n{table}\n{build.TABLE_END}" in README


@pytest.mark.skipif(not RESULTS.exists(), reason="no results yet")
def test_committed_results_are_mnist_s():
    assert json.loads(RESULTS.read_text())["dataset"] == "MNIST"


def test_every_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_target_says_what_it_does():
    targets = re.findall(r"^([a-z]+):(.*)$", MAKEFILE, re.MULTILINE)
    assert [name for name, rest in targets if not re.search(r"  ## \w", rest)] == []


def test_every_file_that_the_readme_links_or_names_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"`((?:mnistae|report|tests|benchmarks)/[\w./]+\.(?:py|typ|lua|html|json))`", README)
    assert named
    for path in {*linked, *named}:
        assert (ROOT / path).exists(), path


def test_all_agree_on_the_range_of_python():
    least, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups()
    last = int(beyond) - 1
    assert f"python>=3.{least},<3.{beyond}" in (ROOT / "environment.yml").read_text()
    assert f"(3, {least}) <= sys.version_info[:2] <= (3, {last})" in MAKEFILE
    assert f"Python 3.{least} to 3.{last} is needed" in MAKEFILE
    assert f"Python 3.{least} to 3.{last}" in README
    assert f'python: ["3.{least}", "3.{last}"]' in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_every_pin_is_exact_and_hashed():
    requirements = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    assert len(requirements) > 100
    for requirement in requirements:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+", requirement), requirement[:60]
        assert "--hash=sha256:" in requirement, requirement[:60]
    assert "--no-strip-extras" in LOCK, "pip would look for a newer release of what is required with extras"
    assert "torch==2.13.0 " not in LOCK, "its CPU build cannot load torchvision"
    assert not re.search(r"^--|://", LOCK, re.MULTILINE), "each machine has an index of its own"


def test_the_lock_file_has_all_that_the_project_asks_for():
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)", LOCK, re.MULTILINE)}
    assert {re.match(r"[\w.-]+", name)[0].lower().replace("_", "-") for name in asked} <= locked


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['project']['version']}\n" in citation
    assert f"license: {PROJECT['project']['license']}\n" in citation


def test_conda_installs_the_same_lock_file():
    environment = (ROOT / "environment.yml").read_text()
    assert "- --require-hashes" in environment
    assert "- -r requirements.lock" in environment


def modules():
    return re.findall(r"^    (\w+)  +\S", mnistae.__doc__, re.MULTILINE)


def test_the_map_names_every_module():
    assert set(modules()) == {path.stem for path in (ROOT / "mnistae").glob("[a-z]*.py")}


def test_modules_import_only_what_the_map_allows():
    """The first nine none of ours, except config's types; the others only those listed above them."""
    order = modules()
    for n, name in enumerate(order):
        code = (ROOT / "mnistae" / f"{name}.py").read_text()
        imported = set(re.findall(r"^\s*from mnistae\.(\w+) import", code, re.MULTILINE))
        for names in re.findall(r"^\s*from mnistae import (.+)$", code, re.MULTILINE):
            imported |= set(names.split(", "))
        assert imported <= ({"config"} if n < 9 else set(order[:n])), name


def test_only_data_store_runs_and_above_know_where_things_are():
    """Training and what it is made of take all that they need as arguments."""
    for name in (
        "config",
        "networks",
        "muon",
        "measures",
        "parallel",
        "figures",
        "sliders",
        "training",
        "transfer",
    ):
        code = (ROOT / "mnistae" / f"{name}.py").read_text()
        assert not re.search(r"os\.environ|data\.load|load\(\)|Path|open\(|manual_seed\(\d", code), name


def test_nothing_of_ours_loads_a_pickle():
    for path in [*(ROOT / "mnistae").glob("*.py"), *(ROOT / "report").glob("*.py")]:
        assert not re.search(r"torch\.load|pickle", re.sub(r"#.*", "", path.read_text())), path.name


@pytest.mark.parametrize(("name", "lax"), [("MNIST", False), ("embedded sample", True)])
def test_notebooks_are_compared_on_mnist_and_executed_on_the_sample(monkeypatch, name, lax):
    from mnistae import data

    spec = importlib.util.spec_from_file_location("root_conftest", ROOT / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    monkeypatch.setenv("MNISTAE_DATA", "somewhere")
    monkeypatch.setattr(data, "load", lambda: data.Data(None, None, None, name))
    config = SimpleNamespace(option=SimpleNamespace(nbval=True, nbval_lax=False))
    conftest.pytest_configure(config)
    assert (config.option.nbval, config.option.nbval_lax) == (not lax, lax)
    assert os.environ["MNISTAE_DATA"] == ("sample" if lax else "somewhere")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The Makefile in a house of card, whose Python finds the data set it is told to and notes its calls."""
    if not shutil.which("make"):
        pytest.skip("there is no make")
    for name in [name for name in os.environ if name.startswith(("MAKE", "MFLAGS", "MNISTAE_"))]:
        monkeypatch.delenv(name)
    house = tmp_path / "a house, ü"
    for path in ("notebooks/1.ipynb", "mnistae/data.py", "checkpoints/1.safetensors", "report/run.py"):
        (house / path).parent.mkdir(parents=True, exist_ok=True)
        (house / path).touch()
    (house / "report" / "build" / "notebooks").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, house)
    python = house / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\ncase "$*" in *data.load*) echo "$FOUND" ;; '
        '*) echo "[$MNISTAE_DATA] $*" >> calls ;; esac\n'
    )
    python.chmod(0o755)
    (house / ".venv" / "done").touch()

    def run(*arguments, found="MNIST"):
        (house / "calls").write_text("")
        done = subprocess.run(
            ["make", *arguments],
            cwd=house,
            env={**os.environ, "FOUND": found},
            capture_output=True,
            text=True,
        )
        return done, (house / "calls").read_text().splitlines()

    run.house = house
    return run


def test_make_and_make_test_ask_for_the_data_once_and_tell_all_processes(make):
    for found, told in (("MNIST", "[]"), ("embedded sample", "[sample]")):
        for target in ("all", "test"):
            done, calls = make(target, found=found)
            assert done.returncode == 0, done.stderr
            told_to = [call for call in calls if not re.search(r"-m (ruff|mypy)", call)]
            assert told_to
            assert all(call.startswith(f"{told} ") for call in told_to)


def test_notebooks_run_again_only_where_the_data_are_others(make):
    runs = [
        any("report/run.py" in call for call in make(found=found)[1])
        for found in ("embedded sample", "embedded sample", "MNIST", "MNIST")
    ]
    assert runs == [True, False, True, False]


def test_make_live_builds_the_pages_and_opens_one(make):
    for name in ("build.py", "page.html", "live.js", "notebook.lua"):
        (make.house / "report" / name).touch()
    done, calls = make("live")
    assert done.returncode == 0, done.stderr
    assert "report/build.py html" in calls[-2]
    assert 'pathlib.Path("report/html/live.html").resolve().as_uri(); webbrowser.open(page)' in calls[-1]


@pytest.mark.parametrize("target", ["refresh", "retrain"])
def test_nothing_committed_is_written_anew_without_mnist(make, target):
    done, calls = make(target, found="embedded sample")
    assert done.returncode != 0
    assert "Without MNIST nothing that is committed" in done.stderr
    assert calls == []
    assert (make.house / "checkpoints" / "1.safetensors").exists()
    done, calls = make("refresh")
    assert done.returncode == 0
    assert calls == ["[] report/run.py --in-place", "[] report/build.py refresh"]


def test_a_python_that_is_too_old_or_too_new_is_refused_with_the_cure(make):
    shutil.rmtree(make.house / ".venv")
    for version in ("(3, 10)", "(3, 15)"):
        python = make.house / "other python"
        python.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = {version}; $2"\n'
        )
        python.chmod(0o755)
        done, calls = make("PYTHON=./other\\ python")
        assert done.returncode != 0
        assert "Python 3.11 to 3.14 is needed: make PYTHON=python3" in done.stderr
        assert calls == []


def test_make_help_lists_the_targets(make):
    done, calls = make("help")
    assert re.findall(r"^make (\w+)", done.stdout, re.MULTILINE)[:2] == ["all", "help"]
    assert set(re.findall(r"^make (\w+)", done.stdout, re.MULTILINE)) == set(
        re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)
    )
    assert calls == []
