"""What is done to a batch of training images, in order, each step where the recipe asks for it.

Everything is drawn from one stream, so that a batch is a function of (seed, epoch, step), also
where several processes make it, each its share.
"""

from dataclasses import dataclass, field

import numpy as np

from pipeline.preprocessing.affine import AffineRanges, affine_matrices, move_pixels
from pipeline.preprocessing.mixing import cutmix, erase, mixup
from pipeline.preprocessing.trivial_augment import trivial_augment
from pipeline.randomness import BatchDraws


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed. The default changes nothing."""

    ranges: AffineRanges = field(default_factory=AffineRanges)
    """How far they are moved."""
    trivial: bool = False
    """TrivialAugment: one more change, drawn for each image."""
    erasing: float = 0.0
    """Share of the images that lose a rectangle."""
    cutmix: float = 0.0
    """Alpha of CutMix; 0: none."""
    mixup: float = 0.0
    """Alpha of mixup; 0: none. With both, each batch gets one or the other, by chance."""

    def apply(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        mirror: np.ndarray,
        stream: BatchDraws,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return changed copies, or what was given where nothing is to be changed.

        Args:
            images: uint8 RGB (n, side, side, 3).
            labels: float32 (n, classes), one-hot.
            mirror: bool (n,), the images whose left and right change places.
            stream: What is drawn is drawn from it, for these images.

        Returns:
            uint8 (n, side, side, 3) and float32 (n, classes), which sum to 1.
        """
        if self == Augmentation() and not mirror.any():
            return images, labels
        parameters = self.ranges.draw(stream, images.shape[1], mirror)
        if mirror.any() or self.ranges != AffineRanges():
            images = move_pixels(images, affine_matrices(parameters, images.shape[1]))
        if self.trivial:
            images = trivial_augment(images, stream)
        if self.erasing:
            images = erase(images, self.erasing, stream)
        if self.cutmix and (not self.mixup or stream.of_batch.random() < 0.5):
            return cutmix(images, labels, self.cutmix, stream)
        if self.mixup:
            return mixup(images, labels, self.mixup, stream)
        return images, labels
