import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mnistae import sliders

FRAMES = torch.linspace(0, 1, sliders.STEPS).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def shown(frame):
    """The pixels of a frame of a stack, an <img> with its picture inside."""
    return pixels(base64.b64decode(frame.value.split("base64,")[1].split('"')[0]))


def explorer(**more):
    images = torch.rand(5, 1, 28, 28)
    return sliders.explorer(
        images, torch.arange(5), {4: lambda a, b: FRAMES, 10: lambda a, b: 1 - FRAMES}, **more
    )


def test_png_shows_ink_dark_and_images_side_by_side():
    picture = pixels(sliders.png(torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)])))
    assert picture.shape == (28, 64)
    assert (picture[:, :32] == 255).all()
    assert (picture[:, 34:62] == 0).all()


def test_alpha_slider_has_a_frame_for_each_alpha_of_each_pair():
    methods = {"d = 4": FRAMES, "pixels": 1 - FRAMES}
    box = sliders.alpha_slider({"4 → 9": methods, "3 → 8": methods})
    controls, _, album, _ = box.children
    chooser, slider, play = controls.children
    assert chooser.options == ("4 → 9", "3 → 8")
    assert [slider.options[0], slider.options[-1]] == ["0.00", "1.00"]
    assert play.value == slider.index == sliders.STEPS // 2, (
        "a jslinked Play resets the slider on load otherwise"
    )
    for stack in album.children:
        assert len(stack.children) == sliders.STEPS
        assert stack.selected_index == slider.index
        first = shown(stack.children[0])
        assert (first[:, 34:62] == 0).all(), "α = 0 is the first frame"


def test_alpha_slider_refuses_frames_that_do_not_fit_alpha():
    with pytest.raises(ValueError, match="3 → 8, d = 4: 7 frames; allowed are 21"):
        sliders.alpha_slider({"3 → 8": {"d = 4": FRAMES[:7]}})


def test_explorer_follows_its_boxes():
    box = explorer(first=0, second=1, latent_dim=4)
    boxes, _, message, _, stack, _ = box.children
    latent_dim = boxes.children[2]
    assert "digit 0 (image 0) → digit 1 (image 1), d = 4" in message.value
    before = stack.children[0].value
    latent_dim.value = 10
    assert stack.children[0].value != before
    assert "d = 10" in message.value


@pytest.mark.parametrize(
    ("box", "value", "says"),
    [
        (0, 5, "There is no test image 5: choose 0 to 4"),
        (1, -1, "There is no test image -1: choose 0 to 4"),
        (2, 7, "There is no network with d = 7: choose one of 4, 10"),
    ],
)
def test_explorer_answers_bad_choices_in_place(box, value, says):
    widget = explorer(latent_dim=4)
    boxes, _, message, _, stack, _ = widget.children
    before = [picture.value for picture in stack.children]
    boxes.children[box].value = value
    assert says in message.value
    assert [picture.value for picture in stack.children] == before, "the picture stays"


@pytest.mark.parametrize("more", [{"first": 99}, {"second": -3}, {"latent_dim": 5}])
def test_explorer_answers_bad_arguments_in_place(more):
    message = explorer(**more).children[2]
    assert "There is no" in message.value
