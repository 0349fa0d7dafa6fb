"""Does a picture of any size and shape become what a model takes, and is it known where it lies?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trivium.errors import BundleError
from trivium_models.fold import Prepare, prepare

SIDE = 32


def session(step: Prepare) -> ort.InferenceSession:
    return ort.InferenceSession(prepare(step).SerializeToString())


FIT = session(Prepare(fit=SIDE))
STRETCH = session(Prepare(stretch=SIDE, layout="nhwc"))


def run(graph: ort.InferenceSession, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = graph.run(None, {"pixels": pixels})
    return found


@given(st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_fitted_picture_lies_where_its_frame_says(height: int, width: int) -> None:
    """White inside, black outside, as large as it can be, and nothing of it lost."""
    image, frame = run(FIT, np.full((height, width, 3), 255, np.uint8))
    left, top, across, down = map(int, frame)
    assert max(across, down) == SIDE
    assert min(across, down) >= 1
    assert abs(across / down - width / height) <= max(width / height, 1) / down + 0.1
    assert abs(2 * left + across - SIDE) <= 1
    assert abs(2 * top + down - SIDE) <= 1
    wanted = np.zeros((1, 3, SIDE, SIDE), np.float32)
    wanted[:, :, top : top + down, left : left + across] = 255
    assert np.array_equal(image, wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1), (3, 7000)])
def test_extreme_shapes_are_prepared(shape: tuple[int, int]) -> None:
    """A line of pixels stays one; it is never drawn out to a wall of them."""
    pixels = np.full((*shape, 3), 200, np.uint8)
    image, frame = run(FIT, pixels)
    assert image.shape == (1, 3, SIDE, SIDE)
    assert frame.min() >= 0
    (image,) = run(STRETCH, pixels)
    assert image.shape == (1, SIDE, SIDE, 3)
    assert np.all(image == 200)


def test_channels_turn_before_they_are_scaled() -> None:
    """Each mean belongs to the channel the model sees there."""
    step = Prepare(stretch=4, channels="bgr", mean=(30.0, 20.0, 10.0), std=(2.0,))
    pixels = np.broadcast_to(np.array([10, 24, 40], np.uint8), (9, 7, 3))
    (image,) = run(session(step), pixels)
    assert np.array_equal(image[0, :, 0, 0], np.array([5, 2, 0], np.float32))


@pytest.mark.parametrize("given", [{}, {"crop": 4, "fit": 4}, {"fit": 4, "short": 8}])
def test_a_picture_is_prepared_in_one_way(given: dict[str, Any]) -> None:
    """Two ways at once, or none, is a mistake."""
    with pytest.raises(BundleError, match="exactly one of crop, fit and stretch"):
        prepare(Prepare(**given))
