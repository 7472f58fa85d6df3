"""TrivialAugment's changes of colour against Pillow's, its moves against hand-made images."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from test_augmentation import photographs

from pipeline.preprocessing import trivial_augment as ours
from pipeline.preprocessing.affine import warp_images
from pipeline.randomness import BatchDraws

STRENGTHS = (-1.0, -0.4, 0.0, 0.3, 1.0)
Theirs = Callable[[Image.Image, float], Image.Image]


def enhanced(kind: type) -> Theirs:
    return lambda image, strength: kind(image).enhance(1 + 0.99 * strength)


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        (ours.change_brightness, enhanced(ImageEnhance.Brightness)),
        (ours.change_contrast, enhanced(ImageEnhance.Contrast)),
        (ours.change_saturation, enhanced(ImageEnhance.Color)),
        (ours.change_sharpness, enhanced(ImageEnhance.Sharpness)),
        (ours.posterize, lambda image, s: ImageOps.posterize(image, 8 - round(abs(s) * 6))),
        (ours.solarize, lambda image, s: ImageOps.solarize(image, 256 * (1 - abs(s)))),
        (ours.auto_contrast, lambda image, s: ImageOps.autocontrast(image)),
    ],
)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_colours_change_as_pillow_changes_them(
    change: ours.ColourOperation, theirs: Theirs, strength: float
) -> None:
    for image in photographs(12):
        expected = np.asarray(theirs(Image.fromarray(image), strength)).astype(int)
        inner = np.s_[1:-1, 1:-1]  # Pillow smooths no edge
        difference = np.abs(change(image, strength) - expected)[inner]
        assert difference.max() <= 2
        assert difference.mean() < 1  # Pillow cuts fractions off, we round


def test_equalized_values_follow_the_share_of_lower_ones() -> None:
    for image in photographs(12):
        equalized = ours.equalize(image, 0.5)
        for channel in range(3):
            values, counts = np.unique(image[:, :, channel], return_counts=True)
            higher = np.cumsum(counts) - counts[0]
            expected = dict(zip(values, 255 * higher / higher[-1], strict=True))
            wanted = np.vectorize(expected.get)(image[:, :, channel])
            assert np.abs(equalized[:, :, channel] - wanted).max() < 0.51


def test_a_flat_image_stays_as_it_is() -> None:
    flat = np.full((64, 64, 3), (10, 200, 0), np.uint8)
    for change in (ours.auto_contrast, ours.change_sharpness):
        assert np.array_equal(change(flat, 0.7), flat)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(
    ("kind", "theirs"),
    list(
        enumerate(
            [
                lambda image, s: image.rotate(135 * s, Image.Resampling.BILINEAR),
                lambda image, s: sampled(image, 1, 0.99 * s, -31.68 * s, 0, 1, 0),
                lambda image, s: sampled(image, 1, 0, 0, 0.99 * s, 1, -31.68 * s),
                lambda image, s: sampled(image, 1, 0, 32 * s, 0, 1, 0),
                lambda image, s: sampled(image, 1, 0, 0, 0, 1, 32 * s),
            ]
        )
    ),
)
def test_pixels_move_as_pillow_moves_them(kind: int, theirs: Theirs, strength: float) -> None:
    """Where Pillow leaves black, we repeat the edge: only what both have is compared."""
    matrix = ours.geometric_matrices(np.array([kind]), np.array([strength]), 64)
    for image in photographs(6):
        shown = Image.fromarray(np.ones_like(image))
        inside = cv2.erode(np.asarray(theirs(shown, strength)), np.ones((5, 5))) > 0
        expected = np.asarray(theirs(Image.fromarray(image), strength)).astype(int)
        moved = warp_images(image[None].copy(), matrix)[0]
        assert inside.any()
        assert np.abs(moved - expected)[inside].mean() < 1


def sampled(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )


def test_every_kind_is_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each marks its images by its number: 0 for no change, 1 to 5 for moves, 6 to 13."""

    def mark(number: int) -> ours.ColourOperation:
        return lambda image, strength: np.full_like(image, number)

    monkeypatch.setattr(ours, "COLOUR_OPERATIONS", tuple(map(mark, range(6, 14))))
    monkeypatch.setattr(ours, "geometric_matrices", lambda kinds, strengths, side: kinds + 1)
    monkeypatch.setattr(
        ours, "warp_images", lambda images, marks: images + np.uint8(marks)[:, None, None, None]
    )
    draws = BatchDraws(np.random.default_rng(2), 14_000)
    marked = ours.trivial_augment(np.zeros((14_000, 1, 1, 3), np.uint8), draws)
    counts = np.bincount(marked[:, 0, 0, 0])
    assert len(counts) == 14
    assert np.abs(counts - 1000).max() < 150


def test_strengths_reach_each_image_and_fill_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(ours.COLOUR_OPERATIONS)) == 8
    coloured, moved = [], []
    monkeypatch.setattr(
        ours, "COLOUR_OPERATIONS", (lambda image, s: coloured.append(s) or image,) * 8
    )
    monkeypatch.setattr(ours, "geometric_matrices", lambda kinds, s, side: moved.extend(s) or kinds)
    monkeypatch.setattr(ours, "warp_images", lambda images, matrices: images)
    draws = BatchDraws(np.random.default_rng(2), 14_000)
    ours.trivial_augment(np.zeros((14_000, 1, 1, 3), np.uint8), draws)
    for strengths in (coloured, moved):
        assert -1 <= min(strengths) < -0.99
        assert 0.99 < max(strengths) <= 1
        assert abs(np.mean(strengths)) < 0.05
