"""TrivialAugment: one operation per image, its type and strength drawn uniformly; nothing to tune.

Müller and Hutter 2021 (arXiv:2103.10158), with the wide ranges of its Table 1. It differs from the
authors' code: images are resampled bilinearly, and what moves out is filled with the nearest pixel,
as everywhere here; a shift goes up to half the side, which for 64 pixels is the paper's 32; a shear
leaves the centre where it is, not the upper left corner; and strengths are continuous, not one of
31.
"""

from collections.abc import Callable

import cv2
import numpy as np

from pipeline.preprocessing.affine import about_centre, stack_2x2, warp_images
from pipeline.randomness import BatchDraws

MAX_BLEND = 0.99
MAX_SHEAR = 0.99
MAX_ROTATION = 135.0
"""Degrees."""
MAX_SHIFT = 0.5
"""Of the image size."""
MIN_BITS, ALL_BITS = 2, 8
ColourOperation = Callable[[np.ndarray, float], np.ndarray]
"""From uint8 (side, side, 3) and a strength, -1 to 1, to the same in other colours."""
GEOMETRIC = 5
"""Kinds 0 to 4: rotation, shear along x and y, shift along x and y. Kind 5 is the identity, and the
colour operations follow."""

VALUES = np.arange(256, dtype=np.uint8)
"""All of a pixel: lookup tables are made from them."""
SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
"""Pillow's ``ImageFilter.SMOOTH``, which its ``Sharpness`` blends with."""


def trivial_augment(images: np.ndarray, draws: BatchDraws) -> np.ndarray:
    """Change uint8 RGB images (n, side, side, 3) in place by ``draws``; return them."""
    kinds = draws.integers(GEOMETRIC + len(COLOUR_OPERATIONS) + 1)
    strengths = draws.uniform(-1, 1)
    moved = np.flatnonzero(kinds < GEOMETRIC)
    matrices = geometric_matrices(kinds[moved], strengths[moved], images.shape[1])
    images[moved] = warp_images(images[moved], matrices)
    for row in np.flatnonzero(kinds > GEOMETRIC):
        images[row] = COLOUR_OPERATIONS[kinds[row] - GEOMETRIC - 1](images[row], strengths[row])
    return images


def geometric_matrices(kinds: np.ndarray, strengths: np.ndarray, side: int) -> np.ndarray:
    """Return float64 (n, 2, 3): from (x, y, 1) in the result to (x, y) in the source image.

    Args:
        kinds: Integers (n,), 0 to below ``GEOMETRIC``.
        strengths: (n,), -1 to 1.
        side: Pixels.
    """
    of_each_kind = np.where(kinds == np.arange(GEOMETRIC)[:, None], strengths, 0)
    rotation, shear_x, shear_y, shift_x, shift_y = of_each_kind
    angle = np.deg2rad(MAX_ROTATION * rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    # each image has one kind: of rotation and the two shears, at most one is not the identity
    linear = stack_2x2(cos, MAX_SHEAR * shear_x - sin, MAX_SHEAR * shear_y + sin, cos)
    shifts = MAX_SHIFT * side * np.stack([shift_x, shift_y], axis=1)
    return about_centre(linear, shifts, side)


def change_brightness(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with black, or away from it."""
    return _blend(image, np.zeros_like(image), strength)


def change_contrast(image: np.ndarray, strength: float) -> np.ndarray:
    """Blend with the mean luminance, or away from it."""
    mean, *_ = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
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
    dropped = round(abs(strength) * (ALL_BITS - MIN_BITS))
    return image >> dropped << dropped


def solarize(image: np.ndarray, strength: float) -> np.ndarray:
    """Invert the values at or above a threshold."""
    return cv2.LUT(image, np.where(256 * (1 - abs(strength)) > VALUES, VALUES, 255 - VALUES))


def auto_contrast(image: np.ndarray, strength: float) -> np.ndarray:
    """Stretch each channel to the whole range, whatever the strength."""
    return cv2.merge([_stretch_channel(channel) for channel in cv2.split(image)])


def _stretch_channel(channel: np.ndarray) -> np.ndarray:
    low, high, *_ = cv2.minMaxLoc(channel)
    wider = np.rint(np.clip((VALUES - low) * (255 / max(high - low, 1)), 0, 255))
    return cv2.LUT(channel, wider.astype(np.uint8)) if high > low else channel


def equalize(image: np.ndarray, strength: float) -> np.ndarray:
    """Equalize each channel's histogram, whatever the strength."""
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])


def _blend(image: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    weight = 1 + MAX_BLEND * strength
    return cv2.addWeighted(image, weight, other, 1 - weight, 0)


COLOUR_OPERATIONS: tuple[ColourOperation, ...] = (
    change_brightness,
    change_contrast,
    change_saturation,
    change_sharpness,
    posterize,
    solarize,
    auto_contrast,
    equalize,
)
