"""Mixed labels against what can be counted in the mixed images."""

import numpy as np

from pipeline.preprocessing.cutmix import cutmix
from pipeline.randomness import BatchDraws

COUNT, SIDE = 200, 32
LABELS = np.eye(COUNT, dtype=np.float32)
IMAGES = np.broadcast_to(
    np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, SIDE, SIDE, 3)
)
"""Each of one grey, which tells it from all others."""


def drawn(seed: int, count: int) -> BatchDraws:
    return BatchDraws(np.random.default_rng(seed), count)


def test_cutmix_labels_are_the_shares_of_the_area() -> None:
    mixed, labels = cutmix(IMAGES.copy(), LABELS, 1.0, drawn(1, COUNT))
    for image, label in zip(mixed, labels, strict=True):
        share = np.bincount(image[:, :, 0].ravel(), minlength=COUNT) / SIDE**2
        assert np.allclose(label, share, atol=1e-6)
    kept = labels.diagonal()
    assert 0 <= kept.min() < 0.3
    assert 0.9 < kept.max() <= 1
    assert 0.5 < kept.mean() < 0.75  # a half, and what a rectangle over the edge leaves


def test_cutmix_pastes_one_rectangle_from_where_it_was() -> None:
    images = np.random.default_rng(3).integers(256, size=(20, SIDE, SIDE, 3), dtype=np.uint8)
    mixed, labels = cutmix(images.copy(), np.eye(20), 1.0, drawn(4, 20))
    assert (mixed != images).any()
    for row, (image, label) in enumerate(zip(mixed, labels, strict=True)):
        other = images[np.argmax(np.where(np.arange(20) == row, 0, label))]
        pasted = (image != images[row]).any(axis=2)
        if pasted.any():
            rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert np.array_equal(image[box], other[box])
