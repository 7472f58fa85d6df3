"""Mix two images and their labels: CutMix.

An image is mixed with its neighbour in the batch, a random one since the epoch is shuffled: the
first with the second and the second with the first, and so on.
"""

import numpy as np

from pipeline.randomness import BatchDraws


def cutmix(
    images: np.ndarray, labels: np.ndarray, alpha: float, draws: BatchDraws
) -> tuple[np.ndarray, np.ndarray]:
    """Give images a rectangle of another one, in place, and labels mixed by area; return both.

    CutMix: Yun et al. 2019 (arXiv:1905.04899), section 3. For each image lambda, the fraction
    that it keeps, is drawn from Beta(alpha, alpha), and the rectangle's centre evenly over it.

    Args:
        images: uint8 (n, side, side, 3).
        labels: float32 (n, classes).
        alpha: Above 0; 1 draws lambda evenly.
        draws: For these images.
    """
    count, side = images.shape[:2]
    partner = _neighbours(count)
    others = images[partner]
    edge = np.sqrt(1 - draws.beta(alpha)) * side
    centre = np.stack([draws.uniform(0, side), draws.uniform(0, side)])
    top, left = np.clip(np.rint(centre - edge / 2), 0, side).astype(int)
    bottom, right = np.clip(np.rint(centre + edge / 2), 0, side).astype(int)
    for row, other in enumerate(others):
        box = np.s_[top[row] : bottom[row], left[row] : right[row]]
        images[row][box] = other[box]
    lam = 1 - (bottom - top) * (right - left) / side**2
    return images, _mix_labels(labels, labels[partner], lam)


def _neighbours(count: int) -> np.ndarray:
    """Return for each image the place of the one beside it; an odd last one takes the first."""
    beside = np.arange(count) ^ 1  # 0 with 1, 2 with 3, …
    return np.where(beside < count, beside, 0)


def _mix_labels(labels: np.ndarray, others: np.ndarray, lam: np.ndarray) -> np.ndarray:
    lam = lam.astype(np.float32)[:, None]
    return labels * lam + others * (1 - lam)
