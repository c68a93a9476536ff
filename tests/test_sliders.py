import base64
import io
import re

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from mnistae import sliders

FRAMES = torch.linspace(0, 1, sliders.STEPS).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def pixels(tag):
    """The pixels of an <img> with its picture inside, as the frames of a stack are."""
    content = base64.b64decode(tag.split("base64,")[1].split('"')[0])
    return np.asarray(Image.open(io.BytesIO(content)))


def explorer(**more):
    methods = {4: lambda a, b: FRAMES, 10: lambda a, b: 1 - FRAMES}
    return sliders.explorer(torch.rand(5, 1, 28, 28), torch.arange(5), methods, **more)


def test_a_picture_shows_ink_dark_and_images_side_by_side():
    images = torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])
    picture = pixels(sliders._picture(images, ""))
    assert picture.shape == (28, 64)
    assert (picture[:, :32] == 255).all()
    assert (picture[:, 34:62] == 0).all()


def test_alpha_slider_has_a_frame_that_says_what_it_shows_for_each_alpha_of_each_pair():
    methods = {"d = 4": FRAMES, "<pixels>": 1 - FRAMES}
    in_another_order = dict(reversed(methods.items()))  # stands under the same names all the same
    box = sliders.alpha_slider({"4 → 9": methods, "3 → 8": in_another_order})
    controls, _, album, _ = box.children
    chooser, slider, play = controls.children
    assert chooser.options == ("4 → 9", "3 → 8")
    assert [slider.options[0], slider.options[-1]] == ["0.00", "1.00"]
    assert play.value == slider.index == sliders.STEPS // 2, "else a linked Play resets the slider on load"
    for pair, stack in zip(chooser.options, album.children, strict=True):
        assert stack.selected_index == slider.index
        assert (pixels(stack.children[0].value)[:, 34:62] == 0).all(), "α = 0 is the first frame"
        said = [re.search('alt="(.*?)"', frame.value)[1] for frame in stack.children]
        assert said[0] == f"{pair} by d = 4, &lt;pixels&gt;: α = 0.00"
        assert len(set(said)) == sliders.STEPS


def test_without_a_stack_the_kernel_shows_the_chosen_frame():
    stack = sliders.KernelStack([widgets.HTML(layout={}) for _ in range(3)], selected_index=1)

    def shown():
        return [n for n, child in enumerate(stack.children) if child.layout.display != "none"]

    assert shown() == [1]
    stack.selected_index = 2
    assert shown() == [2]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({}, "pairs is empty: allowed"),
        ({"3 → 8": {"d = 4": FRAMES[:7]}}, r"3 → 8 has frames {'d = 4': 7}: allowed are 21"),
        ({"3 → 8": {"d = 4": FRAMES}, "4 → 9": {"d = 10": FRAMES}}, r"4 → 9 has .* of \['d = 4'\]"),
    ],
)
def test_alpha_slider_refuses_pairs_that_do_not_fit(pairs, message):
    with pytest.raises(ValueError, match=message):
        sliders.alpha_slider(pairs)


def test_explorer_follows_its_boxes_and_offers_only_what_there_is():
    box = explorer(first=0, second=1, latent_dim=4)
    (first, second, latent_dim), _, message, _, stack, _ = box.children[0].children, *box.children[1:]
    assert message.value == "digit 0 (image 0) → digit 1 (image 1), d = 4"
    before = stack.children[0].value
    assert f'alt="{message.value}: α = 0.00"' in before
    assert latent_dim.options == (4, 10)
    latent_dim.value = 10
    assert stack.children[0].value != before
    first.value, second.value = 99, -3
    assert (first.value, second.value) == (4, 0)
    assert message.value == "digit 4 (image 4) → digit 0 (image 0), d = 10"


@pytest.mark.parametrize("more", [{"first": 99}, {"second": -3}, {"latent_dim": 5}])
def test_explorer_refuses_bad_arguments(more):
    with pytest.raises(ValueError, match=r"allowed are images 0 to 4 and d in \[4, 10\]"):
        explorer(**more)
