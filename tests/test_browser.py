"""The exported pages with the network refused, then the sliders on a live JupyterLab, in Chromium."""

import importlib
import json
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
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import dedent

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on the PATH, so no test in a browser (Debian: apt install chromium)"
)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
build = importlib.import_module("build")
AXE = "axe-core@4.10.3"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SIZES = {"desktop": 1280, "telephone": 390}
SLIDER, EXPLORER = (f".widget-vbox:has({part})" for part in (".widget-play", "input[type=number]"))
ERROR = '.jp-OutputArea-output:has-text("Traceback (most recent call last)")'

NAME = "sliders.ipynb"
CELLS = {
    "slider": """
        import torch
        from mnistae.sliders import ALPHAS, alpha_slider, explorer

        images = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        alphas = ALPHAS.view(-1, 1, 1, 1)

        def blend(p):
            return lambda a, b: alphas**p * a + (1 - alphas**p) * b

        def methods(i, j):
            return {f"d = {d}": make(images[i], images[j]) for d, make in frames.items()}

        frames = {4: blend(1), 10: blend(3)}
        alpha_slider({"4 → 9": methods(4, 9), "3 → 8": methods(3, 8)})""",
    "explorer": "explorer(images, torch.arange(100) % 10, frames, first=4, second=9, latent_dim=10)",
}

# What the page is asked: the picture that a box shows now. A frame's address holds its picture, so that equal
# addresses are equal pictures.
WATCH = """
window.picture = box => {
  const frames = [...box.querySelectorAll(".mnistae-frame")].filter(frame => frame.offsetParent);
  const [frame] = frames;
  return frames.length == 1 && frame.complete && frame.naturalWidth ? frame.src : null;
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


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-sync"])
        yield chromium
        chromium.close()


def opened(browser, url, width=SIZES["desktop"], **look):
    """A page and the list of all that goes wrong in it, requests that want to leave the machine among it."""
    page = browser.new_page(viewport={"width": width, "height": 1000}, **look)
    page.set_default_timeout(60_000)
    faults = []

    def leave(route):
        faults.append(f"asks for {route.request.url}")
        route.abort()

    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.add_init_script(WATCH)
    page.route(lambda asked: not asked.startswith(("file:", "data:", "http://127.0.0.1:")), leave)
    page.goto(url)
    return page, faults


def picture(box):
    """What the box shows, once it shows something."""
    return box.page.wait_for_function("picture", arg=box.element_handle()).json_value()


def another(box, old):
    """The picture that takes the place of `old`."""
    changed = "([box, old]) => picture(box) != old && picture(box)"
    return box.page.wait_for_function(changed, arg=[box.element_handle(), old]).json_value()


# The exported pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The committed notebooks as pages, in a folder of their own."""
    folder = tmp_path_factory.mktemp("pages")
    for name, page in build.build_pages(ROOT / "notebooks").items():
        (folder / name).write_text(page)
    return folder


@pytest.fixture(scope="module")
def axe(request, tmp_path_factory):
    """axe-core's script, from npm once, then from pytest's cache."""
    npm, cache = shutil.which("npm"), getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("axe") if cache else tmp_path_factory.mktemp("axe"))
    script = folder / f"{AXE}.js"
    if not script.exists():
        if not npm:
            pytest.skip("no npm on the PATH, so no check with axe (Debian: apt install npm)")
        done = subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-300:]}")
        with tarfile.open(folder / done.stdout.split()[-1]) as packed:
            script.write_bytes(packed.extractfile("package/axe.min.js").read())
    return script.read_text()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("telephone", "dark")])
def test_pages_are_whole_offline_and_accessible(pages, axe, browser, size, scheme):
    paths = sorted(pages.glob("*.html"))
    assert len(paths) > 5
    for path in paths:
        name = path.name
        page, faults = opened(browser, path.as_uri(), SIZES[size], color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth && i.alt)"), name
        red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])")
        assert (red < 128) == (scheme == "dark")
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(done => done.violations)")
        serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
        assert not serious, f"{name}: {json.dumps(serious, indent=1)[:3000]}"
        assert faults == [], name
        page.close()


def test_what_belongs_together_stays_on_one_line(pages, browser):
    page, _ = opened(browser, (pages / "03_decorrelation.html").as_uri(), SIZES["telephone"])
    words = page.inner_text("main")
    assert re.search("d\u00a0=\u00a0\\d", words)
    assert re.search("\\d\u00a0±\u00a0\\d", words)
    assert not re.search(r"d = \d|\d ± \d", words)
    page.goto((pages / "05_theory.html").as_uri())
    rows = page.evaluate("[...document.querySelectorAll('.whole')].map(part => part.getClientRects().length)")
    assert len(rows) > 100
    assert set(rows) == {1}  # a formula and the comma behind it
    items = page.evaluate("[...document.querySelectorAll('li')].map(li => getComputedStyle(li).overflowX)")
    assert set(items) == {"visible"}  # or else its mark would be cut off
    page.close()


@pytest.fixture
def page(pages, browser):
    """The page with the slider; whatever goes wrong in it fails the test."""
    page, faults = opened(browser, (pages / "02_interpolation.html").as_uri())
    assert page.get_by_text("works only in the running notebook").is_visible()
    yield page
    page.close()
    assert faults == []


def test_slider_of_the_page_by_mouse_keys_and_pair(page):
    box = page.locator(".slider")
    alpha, shown, pair = box.locator("input"), box.locator("output"), box.locator("select")
    page.evaluate("steady", box.element_handle())
    alpha.press("Home")
    start, said = picture(box), box.locator("img:visible").get_attribute("alt")
    edges = alpha.bounding_box()
    y = edges["y"] + edges["height"] / 2
    page.mouse.move(edges["x"] + 5, y)
    page.mouse.down()
    page.mouse.move(edges["x"] + edges["width"] / 2, y, steps=8)
    assert shown.text_content() == "0.50"
    page.mouse.move(edges["x"] + edges["width"], y, steps=8)
    page.mouse.up()
    assert shown.text_content() == "1.00"
    end = picture(box)
    assert len({start, end}) == 2
    alpha.press("ArrowLeft")
    assert alpha.get_attribute("aria-valuetext") == shown.text_content() == "0.95"
    assert picture(box) != end
    assert said != box.locator("img:visible").get_attribute("alt")
    alpha.press("Home")
    assert picture(box) == start
    count = pair.locator("option").count()
    seen = {pair.select_option(index=n) and picture(box) for n in range(count)}
    assert len(seen) == count > 1
    seen = page.evaluate("seen")
    assert (seen["blank"], seen["jumps"]) == (0, 0), "the picture flickers or the page jumps"


def test_play_goes_to_the_end_and_starts_again(page):
    box = page.locator(".slider")
    alpha, shown, play = box.locator("input"), box.locator("output"), box.get_by_role("button")
    alpha.press("End")
    alpha.press("ArrowLeft")
    play.click()
    page.wait_for_function("box => box.querySelector('output').value == '1.00'", arg=box.element_handle())
    assert play.text_content() == "Play"
    play.click()
    page.wait_for_function("box => box.querySelector('output').value < '0.50'", arg=box.element_handle())
    play.click()
    stopped = shown.text_content()
    page.wait_for_timeout(400)
    assert shown.text_content() == stopped


# JupyterLab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab of its own, and its process."""
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    notebook = home / "notebooks" / NAME
    notebook.parent.mkdir()
    code = [new_code_cell(dedent(source).strip(), id=name) for name, source in CELLS.items()]
    nb = new_notebook(cells=[new_markdown_cell("# Sliders", id="title"), *code])
    nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(nb, notebook)
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
        server = psutil.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log)
    limit = time.monotonic() + 180  # on a busy machine; it takes 6 s on an idle one
    while server.poll() is None and time.monotonic() < limit:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=10).close()
            break
        time.sleep(0.2)
    else:
        server.kill()
        pytest.fail(f"JupyterLab did not start:\n{(home / 'log').read_text()[-3000:]}")
    yield f"http://127.0.0.1:{port}/lab/tree/{NAME}?token={token}", server
    ours = [server, *server.children(recursive=True)]
    server.terminate()
    for process in psutil.wait_procs(ours, timeout=20)[1]:
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


def press(box, key, shows):
    """Press a key on the slider, wait for the α it leads to, return the picture."""
    box.locator(".noUi-handle").press(key)
    box.locator(".widget-readout", has_text=shows).wait_for()
    return picture(box)


def test_slider_in_jupyterlab_needs_no_kernel(live):
    page, faults, kernel = live
    box = page.locator(SLIDER).last
    with stopped(kernel):
        start = press(box, "Home", "0.00")
        page.evaluate("steady", box.element_handle())
        handle, bar = box.locator(".noUi-handle").bounding_box(), box.locator(".noUi-base").bounding_box()
        y = handle["y"] + handle["height"] / 2
        page.mouse.move(handle["x"] + handle["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(bar["x"] + bar["width"], y, steps=8)
        box.locator(".widget-readout", has_text="1.00").wait_for()
        page.mouse.up()
        end = another(box, start)
        assert press(box, "ArrowLeft", "0.95") != end
        box.locator("select").select_option(index=1)
        press(box, "End", "1.00")
        assert another(box, end) != start
        box.locator(".widget-play button").first.click()
        box.locator(".widget-readout", has_text="0.").wait_for()  # from the end it starts again
        box.locator(".widget-play button").nth(1).click()  # stop
        seen = page.evaluate("seen")
        assert (seen["blank"], seen["jumps"]) == (0, 0), "the picture flickers or the page jumps"
    assert faults == []


@pytest.mark.parametrize("width", [1280, 900])
@pytest.mark.parametrize("box", [SLIDER, EXPLORER])
def test_names_stand_above_sharp_tiles(live, box, width):
    page = live[0]
    page.set_viewport_size({"width": width, "height": 1000})
    box = page.locator(box).last
    frame = box.locator(".mnistae-frame >> visible=true")
    # All places at one moment: the page may still be setting itself to the new width.
    places = "(frame, names) => [frame, ...names].map(part => part.getBoundingClientRect().toJSON())"
    names = [name.element_handle() for name in box.locator(".mnistae-names span").all()]
    edges, *names = frame.evaluate(places, names)
    tiles = len(names)
    for n, name in enumerate(names):
        middle = edges["x"] + (n + 0.5) * edges["width"] / tiles
        assert name["x"] + name["width"] / 2 == pytest.approx(middle, abs=3)
        assert 0 <= edges["y"] - (name["y"] + name["height"]) < 20
    assert frame.evaluate("frame => getComputedStyle(frame).imageRendering") == "pixelated"
    assert edges["width"] / edges["height"] == pytest.approx(tiles * 32 / 28, rel=0.01)
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), "something runs off the page"


def choose(box, name, value):
    """Fill one of the explorer's two boxes and leave it."""
    field = box.locator("input[type=number]").nth(("first", "second").index(name))
    field.fill(str(value))
    field.press("Enter")


def test_explorer_keeps_to_what_there_is(live):
    page, faults, _ = live
    box = page.locator(EXPLORER).last
    good = picture(box)
    choose(box, "first", 10_000_000)
    box.get_by_text("(image 99)").wait_for()
    fresh = another(box, good)
    box.locator("select").select_option("4")
    box.get_by_text("d = 4").last.wait_for()
    assert another(box, fresh) != good
    assert faults == []
    assert page.locator(ERROR).all_text_contents() == []
