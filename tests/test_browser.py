"""The slider chapter in a real browser: Chromium on a live JupyterLab, then on the exported page alone.

Run with -s to read the measured times.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import warnings
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from textwrap import dedent

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mnistae import data

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on the PATH, so no test in a browser (Debian: apt install chromium)"
)

ROOT = Path(__file__).parents[1]
NAME = "02_interpolation.ipynb"
CHAPTER = ROOT / "notebooks" / NAME
PACKAGES = {"@jupyter-widgets/html-manager@1.0.15": "dist/embed-amd.js", "requirejs@2.3.8": "require.js"}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SIZE = {"width": 1280, "height": 1000}
SLIDER, EXPLORER = (f".widget-vbox:has({part})" for part in (".widget-play", "input[type=number]"))
ERROR = '.jp-OutputArea-output:has-text("Traceback (most recent call last)")'
BAD_D = 7  # a d that no network of the study has
HARMLESS = (  # in the address of a console error
    ".woff",  # the icons of the play button, which stand on the widget scripts' server only
    ".ttf",
)

# A small stand-in for the chapter, with the same cell ids, where the chapter or MNIST is missing.
STAND_IN = {
    "slider": """
        import torch
        from mnistae.sliders import ALPHAS, alpha_slider, explorer

        images = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        alphas = ALPHAS.view(-1, 1, 1, 1)

        def bent(p):
            return lambda a, b: alphas**p * a + (1 - alphas**p) * b

        frames = {4: bent(1), 8: bent(2), 10: bent(3), 64: bent(4)}
        pairs = {"4 → 9": (4, 9), "3 → 8": (3, 8), "0 → 1": (0, 1)}
        alpha_slider(
            {
                name: {f"d = {d}": make(images[i], images[j]) for d, make in frames.items()}
                for name, (i, j) in pairs.items()
            }
        )""",
    "explorer": "explorer(images, torch.arange(100) % 10, frames, first=4, second=9, latent_dim=10)",
}

# What the page is asked: the picture that a box shows now, and how long after an event another one is there.
# A frame's address holds its picture, so that equal addresses are equal pictures.
WATCH = """
window.picture = box => {
  const frames = [...box.querySelectorAll(".mnistae-frame")].filter(frame => frame.offsetParent);
  const [frame] = frames;
  return frames.length == 1 && frame.complete && frame.naturalWidth ? frame.src : null;
};
window.watch = ([box, event]) => {  // milliseconds from an event in the box to the frame with another picture
  window.watching?.abort();
  const {signal} = window.watching = new AbortController();
  window.times = [];
  box.addEventListener(event, () => {
    const start = performance.now(), old = picture(box);
    const look = () => {
      const now = picture(box);
      if (signal.aborted) return;
      if (now && now != old) times.push(performance.now() - start);
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, {capture: true, signal});
};
window.steady = box => {  // counts the painted frames in which the picture is missing or the page has jumped
  const height = box.offsetHeight, seen = window.seen = {frames: 0, blank: 0, jumps: 0};
  const look = () => {
    if (window.seen != seen) return;
    seen.frames += 1;
    seen.blank += !picture(box);
    seen.jumps += box.offsetHeight != height;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
};
"""


def chapter():
    """The notebook under test: the chapter up to its explorer where it can run, else the stand-in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ready = CHAPTER.exists() and data.load().name == "MNIST"  # else it would train its networks first
    if not ready:
        code = [new_code_cell(dedent(source).strip(), id=name) for name, source in STAND_IN.items()]
        nb = new_notebook(cells=[new_markdown_cell("# 2  Interpolation", id="title"), *code])
        nb.metadata.kernelspec = {
            "name": "python3",
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
        }
        return nb
    nb = nbformat.read(CHAPTER, as_version=4)
    ids = [cell.id for cell in nb.cells]
    assert {"slider", "explorer"} <= set(ids), f"{NAME} has lost its cell 'slider' or 'explorer'"
    nb.cells = nb.cells[: ids.index("explorer") + 1]
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A folder with the notebook alone in it."""
    path = tmp_path_factory.mktemp("notebook") / NAME
    nbformat.write(chapter(), path)
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-sync"])
        yield chromium
        chromium.close()


def opened(browser, url):
    """A page and the list of all that goes wrong in it."""
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(60_000)
    faults = []

    def listen(message):
        url = message.location["url"]
        if message.type == "error" and not any(part in url for part in HARMLESS):
            faults.append(f"{message.text} ({url})")

    page.on("console", listen)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.add_init_script(WATCH)
    page.route(re.compile("^https?://(?!127[.]0[.]0[.]1:)"), lambda route: route.abort())  # no network
    page.goto(url)
    return page, faults


@pytest.fixture(scope="module")
def lab(notebook, tmp_path_factory):
    """The address of a JupyterLab of its own, and its process."""
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    kinds = ("CONFIG", "DATA", "RUNTIME")
    env = os.environ | {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in kinds}
    env |= {f"JUPYTERLAB_{kind}_DIR": str(home / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    env |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_TOKEN": token, "OMP_NUM_THREADS": "1"}
    settings = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # no question on top of the page
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--ServerApp.root_dir={notebook.parent}", *(["--allow-root"] if os.geteuid() == 0 else [])]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log
        )

    def ask(path, data=None):
        header = {"Authorization": f"token {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, header)
        return urllib.request.urlopen(request, timeout=10).status

    limit = time.monotonic() + 180  # on a busy machine; it takes 6 s on an idle one
    while True:
        try:
            ask("api")
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > limit:
                server.kill()
                pytest.fail(f"JupyterLab did not start:\n{(home / 'log').read_text()[-3000:]}")
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/lab/tree/{NAME}?token={token}", psutil.Process(server.pid)
    ours = psutil.Process(server.pid).children(recursive=True)
    try:
        ask("api/shutdown", b"")
        server.wait(20)
    except (OSError, subprocess.TimeoutExpired):
        server.kill()
        server.wait()
    for process in psutil.wait_procs(ours, timeout=5)[1]:
        process.kill()


@pytest.fixture(scope="module")
def live(lab, browser):
    """The notebook run in JupyterLab: the page, its faults and the kernel's process."""
    url, server = lab
    page, faults = opened(browser, url)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # the status bar, when the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.locator(f"{EXPLORER} .mnistae-frame").or_(page.locator(ERROR)).first.wait_for(timeout=180_000)
    assert page.locator(ERROR).all_text_contents() == []
    (kernel,) = [p for p in server.children(recursive=True) if "ipykernel_launcher" in " ".join(p.cmdline())]
    yield page, faults, kernel
    page.close()


@pytest.fixture
def page(live, tmp_path):
    """The live page; a fault in its console or a traceback in the notebook fails the test."""
    page, faults, _ = live
    faults.clear()
    page.set_viewport_size(SIZE)
    yield page
    page.screenshot(path=tmp_path / "lab.png")
    assert faults == []
    assert page.locator(ERROR).all_text_contents() == []


@contextmanager
def stopped(process):
    """A process that does nothing at all until the end of the block."""
    process.send_signal(signal.SIGSTOP)
    try:
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        yield
        assert process.status() == psutil.STATUS_STOPPED
    finally:
        process.send_signal(signal.SIGCONT)


def picture(box):
    """What the box shows, once it shows something."""
    return box.page.wait_for_function("picture", arg=box.element_handle()).json_value()


def another(box, old):
    """The picture that takes the place of `old`."""
    return box.page.wait_for_function(
        "([box, old]) => picture(box) != old && picture(box)", arg=[box.element_handle(), old]
    ).json_value()


def readout(box):
    return box.locator(".widget-readout").text_content()


def press(box, key, shows):
    """Press a key on the slider, wait for the α it leads to, return the picture."""
    box.locator(".noUi-handle").press(key)
    box.locator(".widget-readout", has_text=shows).wait_for()
    return picture(box)


def drag(box, *alphas):
    """Drag the handle along the bar with the mouse, waiting at each α until it is shown."""
    box.scroll_into_view_if_needed()
    handle, bar = box.locator(".noUi-handle").bounding_box(), box.locator(".noUi-base").bounding_box()
    mouse, y = box.page.mouse, handle["y"] + handle["height"] / 2
    mouse.move(handle["x"] + handle["width"] / 2, y)
    mouse.down()
    for alpha in alphas:
        mouse.move(bar["x"] + alpha * bar["width"], y, steps=8)
        box.locator(".widget-readout", has_text=f"{alpha:.2f}").wait_for()
    mouse.up()


def try_slider(page):
    """Mouse, keys and pairs: each shows another picture, the same one when it comes back, never none."""
    box = page.locator(SLIDER).last
    pairs = box.locator("select")
    start, look = press(box, "Home", "0.00"), box.screenshot()
    page.evaluate("steady", box.element_handle())
    drag(box, 0.5, 1.0)
    end = another(box, start)
    assert box.screenshot() != look, "pixels of the screen, not only the page's word for them"
    drag(box, 0.0)
    assert another(box, end) == start
    steps = [press(box, "ArrowRight", f"{n / 20:.2f}") for n in range(1, 4)]
    assert len({start, end, *steps}) == 5
    assert press(box, "ArrowLeft", "0.10") == steps[1]
    assert press(box, "End", "1.00") == end
    shown = {start, end}
    for n in range(pairs.locator("option").count()):
        pairs.select_option(index=n)
        shown.add(another(box, end) if n else picture(box))
    pairs.select_option(index=0)
    assert len(shown) > 2
    page.wait_for_function("([box, end]) => picture(box) == end", arg=[box.element_handle(), end])
    seen = page.evaluate("seen")
    assert seen["frames"] > 20
    assert (seen["blank"], seen["jumps"]) == (0, 0), "the picture flickers or the page jumps"


def measured(box, event, act, count):
    """Milliseconds from an event in the box to the frame with another picture, for each of `count` acts."""
    page = box.page
    page.evaluate("watch", [box.element_handle(), event])
    for n in range(count):
        act(n)
        page.wait_for_function("n => times.length == n", arg=n + 1)
    return page.evaluate("watching.abort() || times")


def report(record_property, name, times):
    words = f"{name}: median {median(times):.0f} ms, worst {max(times):.0f} ms, {len(times)} times"
    record_property(name, words)
    print(f"\n{words}")


def choose(box, name, value):
    """Fill one of the explorer's three fields and leave it."""
    field = box.locator("input[type=number]").nth(("first", "second", "d").index(name))
    field.fill(str(value))
    field.press("Enter")


def test_slider_in_jupyterlab(page):
    try_slider(page)


@pytest.mark.parametrize("width", [1280, 900])
@pytest.mark.parametrize("box", [SLIDER, EXPLORER])
def test_names_stand_above_sharp_tiles(page, box, width):
    page.set_viewport_size(SIZE | {"width": width})
    box = page.locator(box).last
    frame = box.locator(".mnistae-frame")
    names = [name.bounding_box() for name in box.locator(".mnistae-names span").all()]
    edges, tiles = frame.bounding_box(), len(names)
    for n, name in enumerate(names):
        middle = edges["x"] + (n + 0.5) * edges["width"] / tiles
        assert name["x"] + name["width"] / 2 == pytest.approx(middle, abs=3)
        assert 0 <= edges["y"] - (name["y"] + name["height"]) < 20
    assert frame.evaluate("frame => getComputedStyle(frame).imageRendering") == "pixelated"
    assert edges["width"] / edges["height"] == pytest.approx(tiles * 32 / 28, rel=0.01)
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), "something runs off the page"


def test_slider_with_the_kernel_stopped(live, page):
    with stopped(live[2]):
        try_slider(page)


def test_play_goes_to_the_end_and_starts_again(page):
    box = page.locator(SLIDER).last
    press(box, "End", "1.00")
    press(box, "ArrowLeft", "0.95")
    press(box, "ArrowLeft", "0.90")
    play = box.locator(".widget-play button").first
    play.click()
    box.locator(".widget-readout", has_text="1.00").wait_for()
    page.wait_for_timeout(400)
    assert readout(box) == "1.00"
    play.click()
    page.wait_for_function(  # asked in the page at each frame: a busy machine may miss a step
        "box => box.querySelector('.widget-readout').textContent < '1.00'", arg=box.element_handle()
    )
    box.locator(".widget-play button").nth(1).click()  # stop


@pytest.mark.parametrize("frozen", [False, True], ids=["live", "stopped"])
def test_time_from_key_to_picture(live, page, record_property, frozen):
    box = page.locator(SLIDER).last
    press(box, "Home", "0.00")
    keys = ["ArrowRight"] * 20 + ["ArrowLeft"] * 20

    def measure():
        return measured(box, "keydown", lambda n: page.keyboard.press(keys[n]), len(keys))

    if frozen:
        with stopped(live[2]):
            times = measure()
    else:
        times = measure()
    report(record_property, f"key to picture, kernel {'stopped' if frozen else 'live'}", times)
    assert median(times) < 500  # the aim is 30; a busy machine must not fail the test


def test_explorer_answers_bad_choices_in_place(page):
    box = page.locator(EXPLORER).last
    good = picture(box)
    choose(box, "first", 10_000_000)
    box.get_by_text("There is no test image 10000000: choose 0 to").wait_for()
    choose(box, "first", -1)
    box.get_by_text("There is no test image -1: choose 0 to").wait_for()
    choose(box, "first", 17)
    box.get_by_text("(image 17)").wait_for()
    fresh = another(box, good)
    choose(box, "d", BAD_D)
    box.get_by_text(f"There is no network with d = {BAD_D}: choose one of").wait_for()
    assert picture(box) == fresh, "the picture stays"
    choose(box, "d", 10)
    box.get_by_text("d = 10").wait_for()


def test_time_from_choice_to_picture(page, record_property):
    box = page.locator(EXPLORER).last
    times = measured(box, "change", lambda n: choose(box, "first", 60 + n), 20)
    report(record_property, "choice to picture", times)
    assert median(times) < 1000  # the aim is 100; a busy machine must not fail the test


def test_long_run_leaves_console_and_memory_alone(live, page, record_property):
    slider, explorer, kernel = page.locator(SLIDER).last, page.locator(EXPLORER).last, live[2]

    def changes(moves, choices):
        press(slider, "Home", "0.00")
        keys = (["ArrowRight"] * 20 + ["ArrowLeft"] * 20) * (1 + moves // 40)
        measured(slider, "keydown", lambda n: page.keyboard.press(keys[n]), moves)
        measured(explorer, "change", lambda n: choose(explorer, "second", 30 + n), choices)
        choose(explorer, "second", 29)  # so that the next run begins with another picture
        return kernel.memory_info().rss

    before = changes(20, 10)  # warm-up
    after = changes(200, 50)
    words = f"{before / 2**20:.1f} to {after / 2**20:.1f} MiB"
    record_property("kernel memory", words)
    print(f"\nkernel memory over 200 moves and 50 choices: {words}")
    assert after == pytest.approx(before, rel=0.05)


@pytest.fixture(scope="module")
def scripts(request, tmp_path_factory):
    """A folder with the scripts that an exported page loads, from npm once, then from pytest's cache."""
    npm, cache = shutil.which("npm"), getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("widget-scripts")) if cache else tmp_path_factory.mktemp("widget-scripts")
    for package, file in PACKAGES.items():
        target = folder / Path(file).name
        if target.exists():
            continue
        if not npm:
            pytest.skip("no npm on the PATH, so no scripts for the exported page (Debian: apt install npm)")
        done = subprocess.run(
            [npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True, timeout=180
        )
        if done.returncode:
            pytest.skip(f"npm cannot fetch {package}: {done.stderr.strip()[-300:]}")
        archive = folder / done.stdout.split()[-1]
        with tarfile.open(archive) as packed:
            content = packed.extractfile(f"package/{file}").read()
        target.with_suffix(".part").write_bytes(content)
        target.with_suffix(".part").rename(target)
        archive.unlink()
    return folder


def test_exported_page_needs_no_kernel(notebook, scripts, browser, tmp_path, record_property):
    env = os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")}
    run = ["report/run.py", str(notebook), "--output", str(tmp_path / "run")]
    html = ["report/build.py", "html", "--notebooks", str(tmp_path / "run"), "--offline", str(scripts)]
    for command in (run, [*html, "--output", str(tmp_path / "html")]):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True, timeout=900)
    page, faults = opened(browser, (tmp_path / "html" / NAME).with_suffix(".html").as_uri())
    page.locator(f"{EXPLORER} .mnistae-frame").wait_for()
    try_slider(page)
    box = page.locator(SLIDER).last
    press(box, "Home", "0.00")
    times = measured(box, "keydown", lambda n: page.keyboard.press("ArrowRight"), 20)
    report(record_property, "key to picture, exported page", times)
    assert median(times) < 500
    alone = page.locator(EXPLORER).last
    assert alone.get_by_text("needs a running kernel").is_visible()
    assert press(alone, "Home", "0.00") != press(alone, "End", "1.00")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.close()
    assert faults == []
