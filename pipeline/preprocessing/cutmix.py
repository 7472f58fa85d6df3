"""CutMix: Yun et al. 2019 (arXiv:1905.04899), section 3."""

import numpy as np

from pipeline.randomness import BatchDraws


def cutmix(
    images: np.ndarray, labels: np.ndarray, alpha: float, draws: BatchDraws
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a rectangle of another image into each, in place; return images and mixed labels.

    Images 2k and 2k + 1 of the batch take from each other; the epoch's shuffle makes the pairs
    random. For each image lambda, the share of its area to
    keep, is drawn from Beta(alpha, alpha), and the rectangle's centre uniformly.

    Args:
        images: uint8 (n, side, side, 3).
        labels: float32 (n, classes).
        alpha: Above 0; with 1 lambda is uniform.
        draws: Random source.
    """
    count, side = images.shape[:2]
    neighbour = np.arange(count) ^ 1  # 0 with 1, 2 with 3, …
    neighbour[neighbour == count] = 0  # in an odd batch the last takes the first
    others = images[neighbour]
    edge = np.sqrt(1 - draws.beta(alpha)) * side
    centre = np.stack([draws.uniform(0, side), draws.uniform(0, side)])
    top, left = np.clip(np.rint(centre - edge / 2), 0, side).astype(int)
    bottom, right = np.clip(np.rint(centre + edge / 2), 0, side).astype(int)
    for row, other in enumerate(others):
        box = np.s_[top[row] : bottom[row], left[row] : right[row]]
        images[row][box] = other[box]
    # by the pixels kept: an image's edges may clip the rectangle
    lam = (1 - (bottom - top) * (right - left) / side**2).astype(np.float32)[:, None]
    return images, labels * lam + labels[neighbour] * (1 - lam)
