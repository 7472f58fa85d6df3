"""Rotate, shift, shear, zoom and mirror a batch of images: one affine map per image.

The parameters mean what they mean to Keras's ``ImageDataGenerator``: angles in degrees, maps
about the image's centre, first rotation, then shift, shear and zoom, nearest fill. Many images go
through one native call, which releases the GIL.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.randomness import BatchDraws
from pipeline.recipe import Augmentation

CHUNK = 32
"""Images handed to OpenCV at once, one below the other: few enough for the CPU's cache."""
ROUNDING = np.float32(1.5 * 2**15)
"""Added and subtracted again, it rounds a float32 to multiples of 1/256, ties to even: too fine to
show in a pixel, and exact down to the last row of a chunk."""
TALLEST = 2**15 - 2
"""Rows that OpenCV takes at once."""


@dataclass(frozen=True)
class AffineParameters:
    """How to move n images; every field is float64 (n,), but ``mirror`` is bool (n,)."""

    rotation: np.ndarray
    """Degrees."""
    shift_x: np.ndarray
    """Pixels."""
    shift_y: np.ndarray
    shear: np.ndarray
    """Degrees."""
    zoom_x: np.ndarray
    """Above 1 shows more of the image, smaller."""
    zoom_y: np.ndarray
    mirror: np.ndarray
    """Whether to mirror left and right, after all else."""


def draw_affine(
    ranges: Augmentation, draws: BatchDraws, side: int, mirror: np.ndarray
) -> AffineParameters:
    """Draw each parameter uniformly from minus to plus its range.

    Args:
        ranges: Of rotation, shift, shear and zoom.
        draws: For these images.
        side: Pixels.
        mirror: bool (n,), the images to mirror.
    """

    def uniform(reach: float) -> np.ndarray:
        return draws.uniform(-reach, reach)

    return AffineParameters(
        rotation=uniform(ranges.rotation),
        shift_x=uniform(ranges.shift) * side,
        shift_y=uniform(ranges.shift) * side,
        shear=uniform(ranges.shear),
        zoom_x=1 + uniform(ranges.zoom),
        zoom_y=1 + uniform(ranges.zoom),
        mirror=mirror,
    )


def affine_matrices(parameters: AffineParameters, side: int) -> np.ndarray:
    """Return float64 (n, 2, 3): from (x, y, 1) in the result to (x, y) in the source image."""
    angle, shear = np.deg2rad(parameters.rotation), np.deg2rad(parameters.shear)
    cos, sin = np.cos(angle), np.sin(angle)
    # rotation @ shear @ zoom, multiplied out
    across = np.stack([cos, sin], axis=1) * parameters.zoom_x[:, None]
    down = np.stack([-np.sin(angle + shear), np.cos(angle + shear)], axis=1)
    down *= parameters.zoom_y[:, None]
    shift = np.stack([parameters.shift_x, parameters.shift_y], axis=1)
    rotated_shift = np.stack(
        [cos * shift[:, 0] - sin * shift[:, 1], sin * shift[:, 0] + cos * shift[:, 1]], axis=1
    )
    across *= np.where(parameters.mirror, -1, 1)[:, None]
    centre = (side - 1) / 2
    offset = rotated_shift + centre - centre * (across + down)
    return np.stack([across, down, offset], axis=2)


def move_pixels(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Resample each image bilinearly through its matrix, nearest fill, in place; return them.

    Args:
        images: uint8 RGB (n, side, side, 3).
        matrices: (n, 2, 3), see ``affine_matrices``.
    """
    chunk = max(1, min(CHUNK, TALLEST // images.shape[1]))
    for start in range(0, len(images), chunk):
        part = slice(start, start + chunk)
        _move_chunk(images[part], matrices[part])
    return images


def _move_chunk(images: np.ndarray, matrices: np.ndarray) -> None:
    """Lay the images one below the other, and resample all by one call.

    OpenCV's path for four channels is vectorised, that for three is not: an unused fourth one
    halves the time and changes no pixel.
    """
    count, side = images.shape[:2]
    tall = (count * side, side)
    x, y = _source_coordinates(matrices, side)
    y += np.arange(count, dtype=np.float32)[:, None, None] * side
    four_channels = cv2.cvtColor(images.reshape(*tall, 3), cv2.COLOR_RGB2RGBA)
    found = cv2.remap(four_channels, x.reshape(tall), y.reshape(tall), cv2.INTER_LINEAR)
    cv2.cvtColor(found, cv2.COLOR_RGBA2RGB, dst=images.reshape(*tall, 3))


def _source_coordinates(matrices: np.ndarray, side: int) -> np.ndarray:
    """Return where each pixel comes from: x and y, float32 (2, n, side, side), inside the image.

    They are multiples of 1/256, which stay exact when an image's place in a chunk is added:
    the pixels of an image do not depend on what else is in the batch.
    """
    pixel = np.arange(side, dtype=np.float32)
    source = np.empty((2, len(matrices), side, side), np.float32)
    for axis in range(2):
        across, down, offset = matrices[:, axis, :, None].astype(np.float32).transpose(1, 0, 2)
        rows = down * pixel + offset
        np.add(rows[:, :, None], (across * pixel)[:, None, :], out=source[axis])
    np.clip(source, 0, side - 1, out=source)
    source += ROUNDING
    source -= ROUNDING
    return source
