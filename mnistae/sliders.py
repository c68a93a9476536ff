"""The α slider: frames made beforehand and switched by the page itself, so that it moves without a kernel."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor

TILE = 112  # pixels of the page for 28 of the image
STEPS = 21
ALPHAS = torch.linspace(0, 1, STEPS)  # steps of 0.05; α = 1 shows the first image, α = 0 the second
_WRAP = {"flex_flow": "row wrap"}  # in a narrow window
_ENDS = "α = 1 shows the first image, α = 0 the second."
_HELP = f"{_ENDS} Drag, or use the arrow keys; Home and End jump."
_LIVE = f"{_ENDS} Another image or another d needs a running kernel."


def png(images: Tensor) -> bytes:
    """One PNG with images side by side, ink dark on white. images: (N, 1, 28, 28) in [0, 1]."""
    padded = torch.nn.functional.pad(images[:, 0].clamp(0, 1), (2, 2))
    ink = 255 - (padded.permute(1, 0, 2).flatten(1) * 255).round().to(torch.uint8)
    content = io.BytesIO()
    Image.fromarray(ink.numpy()).save(content, "PNG", optimize=True)
    return content.getvalue()


def _picture(images: Tensor) -> str:
    # A data: address and decoding="sync", or else each step would show a blank frame first.
    source = base64.b64encode(png(images)).decode()
    size = f'width="{len(images) * TILE * 32 // 28}" height="{TILE}"'
    return f'<img class="mnistae-frame" {size} decoding="sync" src="data:image/png;base64,{source}">'


def _stack(pictures: Sequence[str]) -> widgets.Stack:
    # One layout and one style for all frames: each is longer than a frame in the stored notebook.
    look = {"layout": widgets.Layout(min_height=f"{TILE}px"), "style": widgets.HTML().style}
    return widgets.Stack([widgets.HTML(p, **look) for p in pictures], selected_index=STEPS // 2)


def _captions(names: Sequence[str]) -> widgets.HTML:
    # As wide as the frame below and shrinking with it, so that each name stays above its tile.
    look = "image-rendering:pixelated;display:block;max-width:100%;height:auto"
    cells = "".join(f'<span style="flex:1;text-align:center">{name}</span>' for name in names)
    width = f"max-width:{len(names) * TILE * 32 // 28}px"
    names_row = f'<div class="mnistae-names" style="display:flex;{width}">{cells}</div>'
    return widgets.HTML(f"<style>.mnistae-frame{{{look}}}</style>{names_row}")


def _small(width: str = "190px") -> dict:
    return {
        "layout": {"width": width, "margin": "2px 12px 2px 2px"},
        "style": {"description_width": "initial"},
    }


def _slider() -> widgets.SelectionSlider:
    return widgets.SelectionSlider(
        options=[f"{alpha:.2f}" for alpha in ALPHAS],
        index=STEPS // 2,
        description="α",
        tooltip=_HELP,
        continuous_update=True,
        **_small("440px"),
    )


def alpha_slider(pairs: Mapping[str, Mapping[str, Tensor]]) -> widgets.VBox:
    """A slider for α over the frames of a chosen pair, switched in the browser.

    pairs: name of the pair -> (name of the method -> its frames, (21, 1, 28, 28), α rising from 0 to 1).
    Raises ValueError if there is no pair, or a method has another number of frames.
    """
    if not pairs:
        raise ValueError("pairs is empty: allowed is at least one pair of images")
    slider, play = _slider(), widgets.Play(min=0, max=STEPS - 1, value=STEPS // 2, interval=150)
    tip = "the two digits, first → second"
    chooser = widgets.Dropdown(options=list(pairs), description="pair", tooltip=tip, **_small())
    stacks = []
    for name, methods in pairs.items():
        for method, frames in methods.items():
            if len(frames) != STEPS:
                raise ValueError(
                    f"{name}, {method}: {len(frames)} frames; allowed are {STEPS}, one for each α"
                )
        stacks.append(_stack([_picture(torch.stack(sheet)) for sheet in zip(*methods.values(), strict=True)]))
        widgets.jslink((slider, "index"), (stacks[-1], "selected_index"))
    widgets.jslink((play, "value"), (slider, "index"))
    album = widgets.Stack(stacks, selected_index=0)
    widgets.jslink((chooser, "index"), (album, "selected_index"))
    controls = widgets.HBox([chooser, slider, play], layout=_WRAP)
    return widgets.VBox([controls, _captions(list(next(iter(pairs.values())))), album, widgets.HTML(_HELP)])


def explorer(
    images: Tensor,
    labels: Tensor,
    frames: Mapping[int, Callable[[Tensor, Tensor], Tensor]],
    first: int = 0,
    second: int = 1,
    latent_dim: int | None = None,
) -> widgets.VBox:
    """Any two images and any d of the study, with a live kernel: one batch of frames a choice.

    images: (N, 1, 28, 28); labels: (N,). frames: d -> function of two images (1, 28, 28) that returns their
    (21, 1, 28, 28) frames. A choice out of range is answered by a message in place; the picture stays.
    """
    slider, message = _slider(), widgets.HTML()
    stack = _stack([""] * STEPS)
    widgets.jslink((slider, "index"), (stack, "selected_index"))
    tips = [f"test image 0 to {len(images) - 1}, shown at α = {end}" for end in (1, 0)]
    entries = zip(
        ("first", "second", "d"),
        (first, second, latent_dim or min(frames)),
        (*tips, f"one of {sorted(frames)}"),
        strict=True,
    )
    chosen = [widgets.IntText(v, description=name, tooltip=tip, **_small()) for name, v, tip in entries]

    def show(_change=None) -> None:
        i, j, d = (box.value for box in chosen)
        for index in (i, j):
            if not 0 <= index < len(images):
                message.value = f"<b>There is no test image {index}: choose 0 to {len(images) - 1}.</b>"
                return
        if d not in frames:
            message.value = (
                f"<b>There is no network with d = {d}: choose one of {', '.join(map(str, frames))}.</b>"
            )
            return
        alphas = ALPHAS.view(-1, 1, 1, 1)
        blends = alphas * images[i] + (1 - alphas) * images[j]
        sheets = list(zip(frames[d](images[i], images[j]), blends, strict=True))
        for n in sorted(range(STEPS), key=lambda n: abs(n - slider.index)):  # the one on screen first
            stack.children[n].value = _picture(torch.stack(sheets[n]))
        message.value = f"digit {labels[i]} (image {i}) → digit {labels[j]} (image {j}), d = {d}"

    for box in chosen:
        box.observe(show, "value")
    show()
    captions = _captions(["latent space", "pixel blending"])
    controls = widgets.HBox(chosen, layout=_WRAP)
    return widgets.VBox([controls, slider, message, captions, stack, widgets.HTML(_LIVE)])
