"""Augment a batch of training images, as a recipe says.

Everything is drawn from one stream, so that a batch is a function of (seed, epoch, step), however
it is sharded.
"""

import numpy as np

from pipeline.preprocessing.affine import draw_matrices, warp_images
from pipeline.preprocessing.cutmix import cutmix
from pipeline.preprocessing.trivial_augment import trivial_augment
from pipeline.randomness import BatchDraws
from pipeline.recipe import Augmentation


def augment(
    images: np.ndarray,
    labels: np.ndarray,
    mirror: np.ndarray,
    augmentation: Augmentation,
    draws: BatchDraws,
) -> tuple[np.ndarray, np.ndarray]:
    """Augment the images in place; return them with their labels, which CutMix mixes.

    Args:
        images: uint8 RGB (n, side, side, 3).
        labels: float32 (n, classes), one-hot.
        mirror: bool (n,), the images to mirror; HDF5Generator decides, for alternating flips depend
            on epoch and image.
        augmentation: The operations and their ranges.
        draws: Random source.

    Returns:
        uint8 (n, side, side, 3) and float32 (n, classes), which sum to 1.
    """
    matrices = draw_matrices(augmentation, mirror, draws, images.shape[1])
    ranges = augmentation.rotation, augmentation.shift, augmentation.shear, augmentation.zoom
    if mirror.any() or any(ranges):
        images = warp_images(images, matrices)
    if augmentation.trivial_augment:
        images = trivial_augment(images, draws)
    if not augmentation.cutmix or draws.rng.random() >= augmentation.mixed_share:
        return images, labels
    return cutmix(images, labels, augmentation.cutmix, draws)
