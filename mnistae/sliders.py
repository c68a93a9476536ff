"""The α slider: frames made beforehand and switched by the page itself, so that it moves without a kernel."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from PIL import Image
from torch import Tensor
from traitlets import Int, observe

_OLD = not hasattr(widgets, "Stack")  # ipywidgets 7, as on Colab
# There the kernel switches the frames, each with a layout of its own.
_TIP, _link, _layout = (
    ("description_tooltip", widgets.link, dict) if _OLD else ("tooltip", widgets.jslink, widgets.Layout)
)


class KernelStack(widgets.VBox):
    """A box that shows one of its children; the kernel switches them."""

    selected_index = Int()

    @observe("selected_index", "children")
    def _show(self, _change: object) -> None:
        for n, child in enumerate(self.children):
            child.layout.display = None if n == self.selected_index else "none"


Stack: Any = KernelStack if _OLD else widgets.Stack
TILE = 112  # pixels of the page for 28 of the image
_STEP = 128  # from tile to tile
STEPS = 21
ALPHAS = torch.linspace(0, 1, STEPS)  # steps of 0.05; α = 1 shows the first image, α = 0 the second
_SHOWN = [f"{alpha:.2f}" for alpha in ALPHAS]
_SMALL: dict[str, Any] = {"layout": {"width": "190px"}, "style": {"description_width": "initial"}}
_WRAP = {"flex_flow": "row wrap", "grid_gap": "0 12px"}  # in a narrow window
_ENDS = "α = 1 shows the first image, α = 0 the second."
_HELP = f"{_ENDS} Drag, or use the arrow keys; Home and End jump."
_LIVE = f"{_ENDS} Another image or another d needs a running kernel."


def _picture(images: Tensor, alt: str) -> str:
    # Images (N, 1, 28, 28) side by side, ink dark on white.
    padded = torch.nn.functional.pad(images[:, 0].clamp(0, 1), (2, 2))
    ink = 255 - (padded.permute(1, 0, 2).flatten(1) * 255).round().to(torch.uint8)
    content = io.BytesIO()
    Image.fromarray(ink.numpy()).save(content, "PNG", optimize=True)
    # A data: address and decoding="sync", or else each step would show a blank frame first.
    source = base64.b64encode(content.getvalue()).decode()
    attributes = f'width="{len(images) * _STEP}" height="{TILE}" alt="{html.escape(alt)}"'
    return f'<img class="mnistae-frame" {attributes} decoding="sync" src="data:image/png;base64,{source}">'


def _stack(pictures: Sequence[str]) -> widgets.Box:
    # One layout and one style for all frames: each is longer than a frame in the stored notebook.
    shared = {"layout": _layout(min_height=f"{TILE}px"), "style": widgets.HTML().style}
    return Stack([widgets.HTML(p, **shared) for p in pictures], selected_index=STEPS // 2)


def _captions(names: Sequence[str]) -> widgets.HTML:
    # As wide as the frame below and shrinking with it, so that each name stays above its tile.
    css = "image-rendering:pixelated;display:block;max-width:100%;height:auto"
    cells = "".join(f'<span style="flex:1;text-align:center">{html.escape(name)}</span>' for name in names)
    row = f'<div class="mnistae-names" style="display:flex;max-width:{len(names) * _STEP}px">{cells}</div>'
    return widgets.HTML(f"<style>.mnistae-frame{{{css}}}</style>{row}")


def _slider() -> widgets.SelectionSlider:
    wide = _SMALL | {"layout": {"width": "440px"}}
    more = {"description": "α", _TIP: _HELP} | wide
    return widgets.SelectionSlider(options=_SHOWN, index=STEPS // 2, **more)


def alpha_slider(pairs: Mapping[str, Mapping[str, Tensor]]) -> widgets.VBox:
    """A slider for α over the frames of a chosen pair, switched in the browser.

    pairs: name of the pair -> (name of the method -> its frames, (21, 1, 28, 28), α rising from 0 to 1), the
    same methods in each. Raises ValueError if there is no pair, other methods or another number of frames.
    """
    if not pairs:
        raise ValueError("pairs is empty: allowed is at least one pair of images")
    names = list(next(iter(pairs.values())))
    slider, play = _slider(), widgets.Play(min=0, max=STEPS - 1, value=STEPS // 2, interval=150)
    chooser = widgets.Dropdown(options=list(pairs), description="pair", **_SMALL)
    stacks = []
    for name, methods in pairs.items():
        if (found := {m: len(frames) for m, frames in methods.items()}) != dict.fromkeys(names, STEPS):
            raise ValueError(f"{name} has frames {found}: allowed are {STEPS}, one for each α, of {names}")
        words = f"{name} by {', '.join(names)}"
        sheets = zip(_SHOWN, *(methods[method] for method in names), strict=True)
        stacks.append(_stack([_picture(torch.stack(sheet), f"{words}: α = {a}") for a, *sheet in sheets]))
        _link((slider, "index"), (stacks[-1], "selected_index"))
    widgets.jslink((play, "value"), (slider, "index"))
    album = Stack(stacks, selected_index=0)
    _link((chooser, "index"), (album, "selected_index"))
    controls = widgets.HBox([chooser, slider, play], layout=_WRAP)
    return widgets.VBox([controls, _captions(names), album, widgets.HTML(_HELP)])


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
    (21, 1, 28, 28) frames. The boxes keep to what there is. Raises ValueError for a choice that there is not.
    """
    last, latent_dim = len(images) - 1, latent_dim or min(frames)
    if latent_dim not in frames or not {first, second} <= {*range(last + 1)}:
        allowed = f"allowed are images 0 to {last} and d in {sorted(frames)}"
        raise ValueError(f"first={first}, second={second}, latent_dim={latent_dim}: {allowed}")
    slider, message, stack = _slider(), widgets.HTML(), _stack([""] * STEPS)
    _link((slider, "index"), (stack, "selected_index"))
    boxes = [
        widgets.BoundedIntText(n, 0, last, description=name, **_SMALL)
        for name, n in (("first", first), ("second", second))
    ]
    chooser = widgets.Dropdown(options=list(frames), value=latent_dim, description="d", **_SMALL)

    def show(_change: object = None) -> None:
        i, j, d = boxes[0].value, boxes[1].value, chooser.value
        blends = torch.lerp(images[j], images[i], ALPHAS.view(-1, 1, 1, 1))
        words = f"digit {labels[i]} (image {i}) → digit {labels[j]} (image {j}), d = {d}"
        sheets = zip(_SHOWN, stack.children, frames[d](images[i], images[j]), blends, strict=True)
        for alpha, frame, *sheet in sheets:
            frame.value = _picture(torch.stack(sheet), f"{words}: α = {alpha}")
        message.value = words

    for box in (*boxes, chooser):
        box.observe(show, "value")
    show()
    captions = _captions(["latent space", "pixel blending"])
    controls = widgets.HBox([*boxes, chooser], layout=_WRAP)
    return widgets.VBox([controls, slider, message, captions, stack, widgets.HTML(_LIVE)])
