"""What stands in two places must agree: README and results, lock file and install paths, map and modules."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

import mnistae
from mnistae.data import load

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
README = (ROOT / "README.md").read_text()
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_readme_table_is_made_from_the_results():
    import build

    table = build.result_table(json.loads((ROOT / "report" / "results.json").read_text()))
    assert f"{build.TABLE_START}\n{table}\n{build.TABLE_END}" in README


def test_the_readme_opens_with_the_picture_in_words_too_and_is_short():
    import story

    opening = README.partition("| notebook |")[0]
    assert story.SENTENCE in opening
    assert f"![{story.ALT}](report/story.png)" in opening
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= 1200


def test_every_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_file_that_the_readme_links_or_names_exists():
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    named = re.findall(r"`((?:mnistae|report|tests|benchmarks)/[\w./]+\.(?:py|typ|lua|html|json))`", README)
    assert named
    assert [path for path in (*linked, *named) if not (ROOT / path).exists()] == []


def test_all_agree_on_the_range_of_python_the_version_and_the_lock_file():
    least, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    last = int(beyond) - 1
    assert f"(3, {least}) <= sys.version_info[:2] <= (3, {last})" in MAKEFILE
    assert f"Python 3.{least} to 3.{last} is needed" in MAKEFILE
    assert f"Python 3.{least} to 3.{last}" in README
    assert f'python: ["3.{least}", "3.{last}"]' in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    conda = (ROOT / "environment.yml").read_text()
    for line in (f"python>=3.{least},<3.{beyond}", "- --require-hashes", "- -r requirements.lock"):
        assert line in conda
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {PROJECT['version']}\n" in citation
    assert f"license: {PROJECT['license']}\n" in citation


def test_every_pin_is_exact_and_hashed_and_none_is_missing():
    requirements = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    for requirement in requirements:
        assert re.match(r"[\w.-]+(\[[\w, -]+\])?==\S+", requirement), requirement[:60]
        assert "--hash=sha256:" in requirement, requirement[:60]
    assert "--no-strip-extras" in LOCK, "pip would look for a newer release of what is required with extras"
    assert not re.search(r"^--|://", LOCK, re.MULTILINE), "each machine has an index of its own"
    asked = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    names = [re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in (*asked, *requirements)]
    assert set(names[: len(asked)]) <= set(names[len(asked) :])


MODULES = re.findall(r"^    (\w+)  +\S", mnistae.__doc__, re.MULTILINE)


def test_modules_are_those_of_the_map_and_import_only_what_it_allows():
    """Those above training import none of ours, except config's types; the others those listed above them."""
    assert set(MODULES) == {path.stem for path in (ROOT / "mnistae").glob("[a-z]*.py")}
    for n, name in enumerate(MODULES):
        code = (ROOT / "mnistae" / f"{name}.py").read_text()
        imported = set(re.findall(r"^\s*from mnistae\.(\w+) import", code, re.MULTILINE))
        for names in re.findall(r"^\s*from mnistae import (.+)$", code, re.MULTILINE):
            imported |= set(names.split(", "))
        assert imported <= ({"config"} if n < MODULES.index("training") else set(MODULES[:n])), name


def test_no_module_is_imported_that_windows_lacks():
    unix = re.compile(r"^\s*(?:import|from) (?:resource|fcntl|pwd|grp|termios)\b", re.MULTILINE)
    paths = [path for folder in ("mnistae", "report", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    assert [path.name for path in paths if unix.search(path.read_text())] == []


@pytest.mark.parametrize("name", sorted({*MODULES} - {"data", "store", "runs", "study", "results"}))
def test_training_and_what_it_is_made_of_do_not_know_where_things_are(name):
    """They take all that they need as arguments."""
    code = (ROOT / "mnistae" / f"{name}.py").read_text()
    assert not re.search(r"os\.environ|data\.load|load\(\)|Path|open\(|manual_seed\(\d", code)


@pytest.mark.parametrize(("data", "found"), [("MNIST", "1 failed, 1 passed"), ("sample", "2 passed")])
def test_notebooks_are_compared_on_mnist_and_executed_on_the_sample(tmp_path, data, found):
    if data == "MNIST" and load().name != "MNIST":
        pytest.skip("there is no MNIST, only the sample")
    cells = [new_code_cell("1 + 1", execution_count=1) for _ in range(2)]
    for cell, stored in zip(cells, ("2", "3"), strict=True):
        cell.outputs = [new_output("execute_result", {"text/plain": stored}, execution_count=1)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01.ipynb")
    environment = {"PYTHONPATH": str(ROOT)} | ({"MNISTAE_DATA": data} if data == "sample" else {})
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "conftest", "01.ipynb"]
    settings = {"cwd": tmp_path, "env": os.environ | environment, "capture_output": True, "text": True}
    done = subprocess.run(command, **settings)
    assert found in done.stdout
    assert ("notebooks: executed on the embedded sample" in done.stdout) == (data == "sample")


@pytest.mark.parametrize("name", ["own.safetensors", "own_transfer.json", "own_probe.json"])
def test_the_user_s_networks_and_outcomes_show_in_git_status(name):
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no clone, or no git")
    command = ["git", "check-ignore", "--quiet", f"checkpoints/{name}"]
    assert subprocess.run(command, cwd=ROOT).returncode == 1, "ignored"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The Makefile among empty files, with a Python that finds the data it is told to and notes its calls."""
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
        settings = {"cwd": house, "env": os.environ | {"FOUND": found}, "capture_output": True, "text": True}
        return subprocess.run(["make", *arguments], **settings), (house / "calls").read_text().splitlines()

    run.house = house
    return run


@pytest.mark.parametrize("target", ["all", "test"])
@pytest.mark.parametrize(("found", "told"), [("MNIST", "[] "), ("embedded sample", "[sample] ")])
def test_make_and_make_test_ask_for_the_data_once_and_tell_all_processes(make, target, found, told):
    done, calls = make(target, found=found)
    assert done.returncode == 0, done.stderr
    need_data = [call for call in calls if not re.search(r"-m (ruff|mypy)", call)]
    assert need_data
    assert all(call.startswith(told) for call in need_data)


def test_notebooks_run_again_only_where_the_data_are_others(make):
    found = ("embedded sample", "embedded sample", "MNIST", "MNIST")
    runs = [any("report/run.py" in call for call in make(found=name)[1]) for name in found]
    assert runs == [True, False, True, False]


def test_what_changes_during_a_run_makes_the_next_one_run_again(make):
    """And a run deletes nothing that another one has written."""
    python, other = make.house / ".venv/bin/python", make.house / "report/build/notebooks/other.ipynb"
    other.touch()
    script = python.read_text()
    python.write_text(script + 'case "$*" in *report/run.py*) sleep 0.1; touch notebooks/1.ipynb ;; esac\n')
    make()
    python.write_text(script)
    assert other.exists()
    assert [any("report/run.py" in call for call in make()[1]) for _ in range(2)] == [True, False]
    assert not list(other.parent.glob("start*"))


def test_targets_started_together_do_not_disturb_each_other(make):
    command = {
        "args": ["make", "report/build/dataset"],
        "cwd": make.house,
        "env": os.environ | {"FOUND": "MNIST"},
    }
    together = [subprocess.Popen(**command) for _ in range(8)]
    assert [process.wait() for process in together] == [0] * 8
    assert (make.house / "report/build/dataset").read_text() == "MNIST\n"
    assert not list((make.house / "report/build").glob("dataset.*"))


def test_mnist_survives_a_ci_run_that_is_killed_between_its_halves(tmp_path):
    """Its second half runs without MNIST."""
    for name in (".ci", "bin", "data"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "data/mnist").write_text("whole")

    def run(make):
        for name, does in {"make": make, "chromium": "true", "npm": "true"}.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        return subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=os.environ | path).returncode

    assert run("[ -d data ] || kill -9 $PPID") != 0
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()  # filled again meanwhile, in part
    (tmp_path / "data/mnist").write_text("cut short")
    (tmp_path / "data/other").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True)
    assert run("true") == 0
    assert (tmp_path / "data/mnist").read_text() == "whole"
    assert (tmp_path / "data/other").exists()
    assert [path.name for path in tmp_path.iterdir() if "parked" in path.name] == []


def test_make_live_builds_the_pages_and_opens_one(make):
    for name in ("build.py", "page.html", "live.js", "notebook.lua"):
        (make.house / "report" / name).touch()
    done, calls = make("live")
    assert done.returncode == 0, done.stderr
    assert "report/build.py html" in calls[-2]
    assert 'pathlib.Path("report/html/live.html").resolve().as_uri(); webbrowser.open(page)' in calls[-1]


@pytest.mark.parametrize("target", ["refresh", "retrain"])
def test_nothing_committed_is_overwritten_without_mnist(make, target):
    done, calls = make(target, found="embedded sample")
    assert done.returncode != 0
    assert "Without MNIST no committed file is replaced" in done.stderr
    assert calls == []
    assert (make.house / "checkpoints" / "1.safetensors").exists()
    done, calls = make("refresh")
    assert done.returncode == 0
    assert calls == ["[] report/run.py --in-place", "[] report/build.py refresh"]


def test_retraining_deletes_the_committed_networks_or_without_git_nothing(make):
    ours, own = (make.house / f"checkpoints/{name}.safetensors" for name in ("1", "own"))
    own.touch()
    for prepare in (list, (make.house / ".git").mkdir):  # no clone; a clone that git cannot read
        prepare()
        done, calls = make("retrain")
        assert done.returncode != 0
        assert "Delete by hand those that are to be made again, then run `make`" in done.stderr
        assert calls == []
        assert ours.exists()
        assert own.exists()
    for command in (["init", "-q"], ["add", "checkpoints/1.safetensors"]):
        subprocess.run(["git", *command], cwd=make.house, check=True)
    done, calls = make("retrain")
    assert done.returncode == 0, done.stderr
    assert calls[0] == "[] -m mnistae.study"
    assert not ours.exists()
    assert own.exists()


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


def test_make_help_lists_every_target(make):
    done, calls = make("help")
    listed = re.findall(r"^make ([a-z-]+) +\w", done.stdout, re.MULTILINE)
    assert listed == re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    assert calls == []
