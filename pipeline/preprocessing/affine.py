"""Rotate, shift, shear, zoom and mirror a batch of images: one affine map per image.

The parameters mean what they mean to Keras's ``ImageDataGenerator``: angles in degrees, maps
about the image's centre, first rotation, then shift, shear and zoom, nearest fill.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pipeline.randomness import BatchDraws
from pipeline.recipe import Augmentation


def draw_matrices(
    ranges: Augmentation, mirror: np.ndarray, draws: BatchDraws, side: int
) -> np.ndarray:
    """Draw float64 (n, 2, 3): from (x, y, 1) in the result to (x, y) in the source image.

    Each parameter is drawn uniformly from minus to plus its range.

    Args:
        ranges: Has those of rotation, shift, shear and zoom.
        mirror: bool (n,), the images to mirror left and right, after all else.
        draws: Random source.
        side: The image size in pixels.
    """

    def uniform(reach: float) -> np.ndarray:
        return draws.uniform(-reach, reach)

    angle = np.deg2rad(uniform(ranges.rotation))
    shift = side * np.stack([uniform(ranges.shift), uniform(ranges.shift)], axis=1)
    shear = np.deg2rad(uniform(ranges.shear))
    zoom_x, zoom_y = 1 + uniform(ranges.zoom), 1 + uniform(ranges.zoom)  # above 1 zooms out
    rotation = stack_2x2(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    linear = rotation @ stack_2x2(1, -np.sin(shear), 0, np.cos(shear))
    linear = linear @ stack_2x2(np.where(mirror, -zoom_x, zoom_x), 0, 0, zoom_y)
    return about_centre(linear, (rotation @ shift[..., None])[..., 0], side)


def stack_2x2(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> np.ndarray:
    """Stack numbers or arrays (n,) into the matrices ((a, b), (c, d)), of shape (n, 2, 2)."""
    return np.stack(np.broadcast_arrays(a, b, c, d), axis=-1).reshape(-1, 2, 2)


def about_centre(linear: np.ndarray, shift: np.ndarray, side: int) -> np.ndarray:
    """Return (n, 2, 3): ``linear`` (n, 2, 2) about an image's centre, then ``shift`` (n, 2)."""
    centre = np.full(2, (side - 1) / 2)
    return np.dstack([linear, shift + centre - linear @ centre])


def warp_images(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Resample each image bilinearly through its matrix, nearest fill, in place; return them.

    Args:
        images: uint8 RGB (n, side, side, 3).
        matrices: float64 (n, 2, 3), see ``draw_matrices``.
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
