"""The fast way to decode a JPEG against OpenCV, which has the last word on every file."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.preprocessing.images import decode_image

UPRIGHT, QUARTER_TURN = 1, 6
ORIENTATION = 0x112


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    stream = np.random.default_rng(3)
    coarse = stream.integers(256, size=(9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC)


def packed(picture: np.ndarray, mode: str = "RGB", orientation: int = 0, **settings: int) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(picture).convert(mode)
    if orientation:
        image.getexif()[ORIENTATION] = orientation
        settings["exif"] = image.getexif()
    image.save(file, "JPEG", **settings)
    return file.getvalue()


def by_opencv(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    "settings",
    [
        *({"quality": quality} for quality in (10, 50, 75, 95, 100)),
        *({"subsampling": subsampling} for subsampling in (0, 1, 2)),
        {"progressive": True},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"orientation": UPRIGHT},
        {"orientation": QUARTER_TURN},
    ],
)
def test_pixels_are_opencvs(settings: dict, picture: np.ndarray) -> None:
    data = packed(picture, **settings)
    out = np.empty((64, 64, 3), np.uint8)
    assert np.array_equal(decode_image(data, out), by_opencv(data))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48), (7, 5), (64, 65), (200, 300)])
def test_images_that_fit_and_that_do_not(height: int, width: int, picture: np.ndarray) -> None:
    data = packed(cv2.resize(picture, (width, height)))
    out = np.empty((64, 64, 3), np.uint8)
    image = decode_image(data, out)
    assert np.array_equal(image, by_opencv(data))
    assert np.shares_memory(image, out) == (height * width <= 64 * 64)


def test_other_formats_are_opencvs(picture: np.ndarray) -> None:
    data = cv2.imencode(".png", picture)[1].tobytes()
    assert np.array_equal(decode_image(data, np.empty_like(picture)), by_opencv(data))


def test_damage_is_judged_alike(picture: np.ndarray) -> None:
    whole = packed(picture, quality=90)
    stream = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(whole)
        for place in stream.integers(2, len(data) - 2, size=3):
            data[place] = stream.integers(256)
        outcomes = []
        for out in (None, np.zeros((64, 64, 3), np.uint8)):
            try:
                outcomes.append(decode_image(bytes(data), out))
            except ValueError as error:
                outcomes.append(str(error))
        slow, fast = outcomes
        assert np.array_equal(slow, fast) if isinstance(slow, np.ndarray) else slow == fast
