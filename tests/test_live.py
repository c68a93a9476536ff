"""The live page in Chromium with the network refused (run with -s to read errors and times)."""

import importlib
import sys
from pathlib import Path
from statistics import median

import pytest
import torch

browser_test = importlib.import_module("test_browser")
pytestmark, opened = browser_test.pytestmark, browser_test.opened
browser, axe = browser_test.browser, browser_test.axe  # fixtures

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "report"))
build, live, weights = (importlib.import_module(name) for name in ("build", "live", "weights"))
data = live.data
TELEPHONE = {"width": 375, "has_touch": True}
FIVE = [(0.7, 0.2), (0.35, 0.2), (0.32, 0.5), (0.6, 0.45), (0.7, 0.65), (0.5, 0.85), (0.3, 0.8)]
SHOWN = """selector => [...document.querySelectorAll(`${selector} figure`)].map(figure => {
  const {data} = figure.querySelector("canvas").getContext("2d").getImageData(0, 0, 28, 28);
  return [figure.querySelector("figcaption").innerText, [...data.filter((_, n) => n % 4 == 3)].join()];
})"""
FRAME = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"  # the next one is painted
TIMES = f"""([element, event]) => {{  // milliseconds from an input to the end of the frame that follows
  window.painted = [];
  element.addEventListener(event, ({{timeStamp}}) => {{
    {FRAME}.then(() => painted.push(performance.now() - timeStamp));
  }}, true);
}}"""
by_mouse_and_touch = pytest.mark.parametrize("page", [{}, TELEPHONE], ids=["mouse", "touch"], indirect=True)


@pytest.fixture(scope="module")
def networks():
    return weights.networks(data.load().train.images)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    build.main(["html", "--notebooks", str(ROOT / "notebooks"), "--output", str(folder)])
    return folder


@pytest.fixture
def page(pages, browser, request):
    """The live page, looked at as the test's parameter says; whatever goes wrong in it fails the test."""
    page, faults = opened(browser, (pages / "live.html").as_uri(), **getattr(request, "param", {}))
    yield page
    page.close()
    assert faults == []


def place(page, selector, x, y):  # in shares of an element's sides
    box = page.locator(selector).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def drag(page, selector, points):
    """By finger where the window has touch, else by mouse."""
    page.locator(selector).scroll_into_view_if_needed()
    points = [place(page, selector, *point) for point in points]
    if page.evaluate("navigator.maxTouchPoints"):
        session = page.context.new_cdp_session(page)
        moves = [("touchMove", [{"x": x, "y": y}]) for x, y in points]
        for kind, fingers in [("touchStart", moves[0][1]), *moves, ("touchEnd", [])]:
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        return
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def drawn(page):
    return torch.tensor(page.evaluate("[...current.image]")).view(28, 28)


def shown(page, selector):  # the words below each picture of a part, and its ink
    return page.evaluate(SHOWN, selector)


def fits(image):
    """Whether the longer side is 20 pixels, give or take the blur at its ends, and the mass is centred."""
    sides = [image.sum(0), image.sum(1)]
    centres = [float((side * torch.arange(28)).sum() / side.sum()) for side in sides]
    longer = max(int((side > 0.5).sum()) for side in sides)
    return 19 <= longer <= 21 and all(abs(centre - 14) < 0.5 for centre in centres)


def test_javascript_computes_what_torch_computes(page, networks, record_property):
    images = list(data.load().test.images[:20].flatten(1))
    for script in ("clear(), stroke()", "stroke([0.3, 0.2], [0.7, 0.3], [0.4, 0.9])", "$('#house').click()"):
        page.evaluate(script)
        images.append(drawn(page).flatten())
    images = torch.stack(images)
    each = "images => methods.map(m => images.map(x => m.encode(Float32Array.from(x))).map(z => [...{}]))"
    codes, decoded = (page.evaluate(each.format(what), images.tolist()) for what in ("z", "m.decode(z)"))
    for (name, network), z, x_hat in zip(networks.items(), codes, decoded, strict=True):
        x, sd = images.view(-1, 1, 28, 28), network.encoder(data.load().test.images[:500]).std(0)
        code = ((torch.tensor(z) - network.encoder(x)) / sd).abs().max()
        pixel = (torch.tensor(x_hat) - network(x).flatten(1)).abs().max()
        record_property(name, words := f"largest error {pixel:.4f} (pixels), {code:.4f} sd (codes)")
        print(f"\n{name}: {words}")
        assert max(code, pixel) <= 0.005


@by_mouse_and_touch
def test_a_drawing_is_centred_and_all_follows(page):
    parts = ("#rebuilt", "#moved2", "#moved10", "#similar")
    page.locator("#paper").scroll_into_view_if_needed()
    before, scrolled = [shown(page, part) for part in parts], page.evaluate("scrollY")
    drag(page, "#paper", FIVE)
    assert page.evaluate("scrollY") == scrolled  # a finger draws and does not scroll
    assert fits(large := drawn(page))
    page.evaluate(FRAME)  # the other parts follow
    assert all(old != shown(page, part) for old, part in zip(before, parts, strict=True))
    page.click("#clear")
    drag(page, "#paper", [(0.05 + 0.6 * x, 0.3 + 0.6 * y) for x, y in FIVE])
    assert fits(drawn(page))
    assert torch.corrcoef(torch.stack([drawn(page).flatten(), large.flatten()]))[0, 1] > 0.8
    page.click("#clear")
    drag(page, "#paper", [(0.9, 0.9)])
    assert drawn(page).sum() > 100  # a dot


@by_mouse_and_touch
def test_the_code_moves_and_goes_back(page):
    plane, start = page.locator("#plane"), shown(page, "#moved2")
    drag(page, "#plane", [(0.5, 0.5), (0.3, 0.6), (0.25, 0.25)])
    mean, sd = (torch.tensor(page.evaluate(f"[...d2.{name}]")) for name in ("mean", "sd"))
    expected = mean + 2.8 * sd * torch.tensor([-0.5, 0.5])  # a quarter from the left and from the top
    assert torch.allclose(torch.tensor(page.evaluate("[...code]")), expected, atol=0.1)
    seen = [plane.get_attribute("aria-valuetext")]
    for key in ("ArrowUp", "ArrowRight", "ArrowDown", "ArrowLeft"):
        plane.press(key)
        seen.append(plane.get_attribute("aria-valuetext"))
        assert shown(page, "#moved2")[0][0] == seen[-1]
    assert (len(set(seen)), seen[4]) == (4, seen[0])
    page.click("#back2")
    assert shown(page, "#moved2") == start
    start, slider = shown(page, "#moved10"), page.get_by_label("z4")
    for key, value in (("Home", "-3"), ("End", "3"), ("ArrowLeft", "2.9")):
        slider.press(key)
        assert slider.input_value() == value
        assert shown(page, "#moved10") != start
    page.click("#back10")
    assert (slider.input_value(), shown(page, "#moved10")) == ("0", start)


def test_interpolation_goes_from_the_first_to_the_second(page):
    alpha, blended = page.get_by_label("α", exact=True), "#between .row:last-child"
    drag(page, "#paper", FIVE)
    page.locator("#pick-first").get_by_role("button", name="the digit above").click()
    page.locator("#pick-second").get_by_role("button", name="test image 7").press("Enter")
    ((_, first),), ((_, second),) = shown(page, "#first"), shown(page, "#second")
    assert first == shown(page, "#rebuilt")[0][1] != second
    alpha.press("End")
    assert shown(page, blended)[0] == ["1.00", first]  # α = 1 shows the first
    for n in range(1, 21):
        alpha.press("ArrowRight")  # to where the second stands
        assert page.locator(f"{blended} figcaption").first.inner_text() == f"{1 - n / 20:.2f}"
    page.evaluate(FRAME)
    rows = [shown(page, f"#between .row:nth-child({n})") for n in range(1, 6)]
    assert all(row[0] == row[5] for row in rows)
    assert rows[4][1::4] == [["1.00", first], ["0.00", second]]


def test_random_codes_resemble_codes_and_similar_images_are_near(page):
    before = shown(page, "#random")
    page.get_by_role("button", name="Sample new codes").press("Enter")
    assert shown(page, "#random") != before
    samples = torch.tensor(page.evaluate("times(2000, () => [...d10.sample()])"))
    codes = torch.tensor(page.evaluate("d10.codes.map(z => [...z])"))
    sd = codes.std(0)
    assert ((samples.mean(0) - codes.mean(0)) / sd).abs().max() < 0.15
    assert ((samples.T.cov() - codes.T.cov()) / sd / sd[:, None]).abs().max() < 0.25
    page.evaluate(f"take(42), {FRAME}")
    nearest = torch.cdist(codes[42:43], codes)[0].argsort()[1:7]  # without the image itself
    digits = [words for words, _ in shown(page, "#similar .row:nth-child(2)")]
    assert digits == [str(int(n) // live.PER_DIGIT) for n in nearest]


def test_keys_alone_reach_everything(page):
    page.evaluate("window.all = [...document.querySelectorAll('main :is(button, input, a, [tabindex])')]")
    focused = "all.indexOf(document.activeElement)"
    while page.evaluate(focused) != 0:
        page.keyboard.press("Tab")
    for n in range(page.evaluate("all.length")):
        assert page.evaluate(focused) == n
        page.keyboard.press("Tab")
    for key, index in (("Enter", 0), ("Space", 1)):
        page.locator("#take").get_by_role("button", name="test image 8").press(key)
        assert page.evaluate("current.index") == 8 * live.PER_DIGIT + index


@pytest.mark.parametrize(
    "page", [{"width": w, "color_scheme": s} for w in (1280, 375) for s in ("light", "dark")], indirect=True
)
def test_the_page_fits_and_is_accessible(page, axe):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("main :is([role=img], [role=slider]):not([aria-label])").count() == 0
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(done => done.violations)")
    assert found == []


def test_odd_drawings_and_a_resized_window_do_no_harm(page):
    for script, ink in (("clear(), stroke()", 0), ("pen.fillRect(0, 0, size, size), stroke()", 350)):
        page.evaluate(script)
        assert drawn(page).sum() >= ink
        assert "NaN" not in page.inner_text("main")
    assert fits(drawn(page))  # all black
    page.click("#clear")
    page.mouse.move(*place(page, "#paper", 0.7, 0.2))
    page.mouse.down()
    page.set_viewport_size({"width": 500, "height": 900})
    page.mouse.move(*place(page, "#paper", 0.3, 0.9), steps=5)
    page.mouse.up()
    assert page.evaluate("last.every((v, n) => Math.abs(v - [0.3, 0.9][n]) < 0.02)")
    assert fits(drawn(page))


def test_without_javascript_there_are_fixed_pictures(pages, browser):
    page, faults = opened(browser, (pages / "live.html").as_uri(), java_script_enabled=False)
    seen = [page.locator(part).is_visible() for part in ("noscript strong", "noscript img", "#paper")]
    assert seen == [True, True, False]
    page.goto((pages / "02_interpolation.html").as_uri())
    frames = [frame.is_visible() for frame in page.locator(".slider img").all()]
    assert sum(frames) == 3 * page.locator(".slider option").count() > 3
    page.close()
    assert faults == []


@by_mouse_and_touch
def test_time_from_input_to_painted_frame(page, record_property):
    rate = 4 if page.evaluate("navigator.maxTouchPoints") else 1
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.mouse.move(*place(page, "#paper", 0.5, 0.5))
    page.mouse.down()
    acts = dict.fromkeys(("#take button", "#pick-first button", "#sample"), "Enter")
    for part, key in {"#paper": "", "#plane": "ArrowUp", "#alpha": "ArrowUp", **acts}.items():
        element = page.locator(part).first
        page.evaluate(TIMES, [element.element_handle(), "keydown" if key else "pointermove"])
        for n in range(10):
            element.press(key) if key else page.mouse.move(*place(page, part, 0.4 + n / 50, 0.6))
            page.evaluate(FRAME)
        page.mouse.up()
        times = page.evaluate("painted")
        record_property(part, words := f"median {median(times):.0f} ms, worst {max(times):.0f} ms")
        print(f"\n{part}, processor {rate} times slower: {words}")
        assert median(times) < 1000, "a busy machine must not fail the test"
