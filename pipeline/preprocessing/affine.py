"""Rotate, shift, shear, zoom and mirror a batch of images: one affine map per image.

The parameters mean what they mean to Keras's ``ImageDataGenerator``: angles in degrees, maps
about the image's centre, first rotation, then shift, shear and zoom, nearest fill.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pipeline.randomness import BatchDraws
from pipeline.recipe import Augmentation


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
    """Zooms out above 1, as in Keras."""
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
    zoom_x = np.where(parameters.mirror, -1, 1) * parameters.zoom_x
    rotation = stack_2x2(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    linear = rotation @ stack_2x2(1, -np.sin(shear), 0, np.cos(shear))
    linear = linear @ stack_2x2(zoom_x, 0, 0, parameters.zoom_y)
    shift = np.stack([parameters.shift_x, parameters.shift_y], axis=1)[..., None]
    return about_centre(linear, (rotation @ shift)[..., 0], side)


def stack_2x2(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> np.ndarray:
    """Return the matrices ((a, b), (c, d)), of shape (n, 2, 2), of arrays (n,) or numbers."""
    return np.stack(np.broadcast_arrays(a, b, c, d), axis=-1).reshape(-1, 2, 2)


def about_centre(linear: np.ndarray, shift: np.ndarray, side: int) -> np.ndarray:
    """Return (n, 2, 3): ``linear`` (n, 2, 2) about an image's centre, and ``shift`` (n, 2)."""
    centre = np.full(2, (side - 1) / 2)
    return np.dstack([linear, shift + centre - linear @ centre])


def warp_images(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Resample each image bilinearly through its matrix, nearest fill, in place; return them.

    Args:
        images: uint8 RGB (n, side, side, 3).
        matrices: (n, 2, 3), see ``affine_matrices``.
    """
    side = images.shape[1]
    for image, matrix in zip(images, matrices, strict=True):
        image[:] = cv2.warpAffine(
            image,
            matrix,
            (side, side),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return images
