"""TrivialAugment: one change an image, of a kind and a strength drawn evenly, and nothing to tune.

Müller and Hutter 2021 (arXiv:2103.10158), with the wide ranges of its Table 1. What moves out of
an image is filled with the nearest pixel, as everywhere here, and a shift goes up to half the side,
which for 64 pixels is the paper's 32.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.preprocessing.affine import move_pixels
from pipeline.randomness import BatchDraws

STRONGEST_BLEND = 0.99
STRONGEST_SHEAR = 0.99
STRONGEST_ROTATION = 135.0
"""Degrees."""
STRONGEST_SHIFT = 0.5
"""Of the side."""
FEWEST_BITS, ALL_BITS = 2, 8

SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def trivial_augment(images: np.ndarray, stream: BatchDraws) -> np.ndarray:
    """Return changed copies of uint8 RGB images (n, side, side, 3)."""
    kinds = stream.integers(len(MOVES) + len(COLOURINGS) + 1)
    strengths = stream.uniform(-1, 1)
    changed = images.copy()
    moved = np.flatnonzero(kinds < len(MOVES))
    if len(moved):
        matrices = [
            _about_centre(MOVES[kinds[row]](strengths[row]), images.shape[1]) for row in moved
        ]
        changed[moved] = move_pixels(images[moved], np.stack(matrices))
    for row in np.flatnonzero(kinds > len(MOVES)):
        colour = COLOURINGS[kinds[row] - len(MOVES) - 1]
        changed[row] = colour(images[row], strengths[row])
    return changed


Move = Callable[[float], list[list[float]]]
"""From a strength, -1 to 1, to the map from (x, y, 1) in the result to (x, y) in the source image:
about the centre, in units of the side."""
Colouring = Callable[[np.ndarray, float], np.ndarray]
"""From uint8 (side, side, 3) and a strength, -1 to 1, to the same in other colours."""


def _rotate(strength: float) -> list[list[float]]:
    angle = np.deg2rad(STRONGEST_ROTATION * strength)
    return [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]


MOVES: tuple[Move, ...] = (
    _rotate,
    lambda strength: [[1, STRONGEST_SHEAR * strength, 0], [0, 1, 0]],
    lambda strength: [[1, 0, 0], [STRONGEST_SHEAR * strength, 1, 0]],
    lambda strength: [[1, 0, STRONGEST_SHIFT * strength], [0, 1, 0]],
    lambda strength: [[1, 0, 0], [0, 1, STRONGEST_SHIFT * strength]],
)


def _about_centre(move: list[list[float]], side: int) -> np.ndarray:
    matrix = np.array(move)
    matrix[:, 2] = matrix[:, 2] * side + (side - 1) / 2 * (1 - matrix[:, :2].sum(axis=1))
    return matrix


def change_brightness(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with black, or away from it."""
    return _blend(image, np.zeros_like(image), strength)


def change_contrast(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with the mean luminance, or away from it."""
    mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    return _blend(image, np.full_like(image, round(mean)), strength)


def change_saturation(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with the luminance of each pixel, or away from it."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _blend(image, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), strength)


def change_sharpness(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with a smoothed image, or away from it."""
    return _blend(image, cv2.filter2D(image, -1, SMOOTHING), strength)


def posterize(image: np.ndarray, strength: float) -> np.ndarray:
    """Leave only the highest bits of each value."""
    dropped = round(abs(strength) * (ALL_BITS - FEWEST_BITS))
    return image >> dropped << dropped


def solarize(image: np.ndarray, strength: float) -> np.ndarray:
    """Turn each value at or above a threshold into its negative."""
    return np.where(image < 256 * (1 - abs(strength)), image, 255 - image)


def stretch(image: np.ndarray, strength: float) -> np.ndarray:
    """Stretch each channel to the whole range, whatever the strength."""
    low, high = image.min(axis=(0, 1)).astype(float), image.max(axis=(0, 1))
    scale = 255 / np.maximum(high - low, 1)
    stretched = np.rint((image - low) * scale).astype(np.uint8)
    return np.where(high > low, stretched, image)


def equalize(image: np.ndarray, strength: float) -> np.ndarray:
    """Make every value of a channel about as frequent as any other, whatever the strength."""
    return np.dstack([cv2.equalizeHist(channel) for channel in cv2.split(image)])


COLOURINGS: tuple[Colouring, ...] = (
    change_brightness,
    change_contrast,
    change_saturation,
    change_sharpness,
    posterize,
    solarize,
    stretch,
    equalize,
)


def _blend(image: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    weight = 1 + STRONGEST_BLEND * strength
    return cv2.addWeighted(image, weight, other, 1 - weight, 0)
