"""The file that the Tiny ImageNet challenge takes: a class for each unlabelled test image.

A line an image, ``test_0.JPEG n02124075``, in the order of the numbers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from pipeline.dataset.decoding import decode_in_order
from pipeline.dataset.image_source import ImageSource
from pipeline.dataset.tiny_imagenet import LabelledImage, read_class_ids
from pipeline.errors import UserError
from pipeline.evaluation.metrics import predict
from pipeline.io.files import written_whole
from pipeline.preprocessing.images import resize_images
from pipeline.progress import progress_bar, remove_bar

FOLDER = "test/images"


def official_names(count: int) -> list[str]:
    """Return the names of ``count`` test images, in order: test_0.JPEG, test_1.JPEG, …"""
    return [f"test_{number}.JPEG" for number in range(count)]


def check_complete(source: ImageSource, class_ids: Sequence[str], count: int) -> None:
    """Check that a submission from ``source`` by a model of these classes would be whole.

    Raises:
        UserError: It holds other test images than the challenge's, or other classes.
    """
    theirs = set(source.names(FOLDER))
    missing = [name for name in official_names(count) if name not in theirs]
    if missing:
        raise UserError(
            f"{FOLDER} lacks {len(missing):,} of the challenge's {count:,} images, {missing[0]} "
            "first, and a partial file is of no use; name the whole data set with -d"
        )
    if len(theirs) > count:
        other = min(theirs - set(official_names(count)))
        raise UserError(f"{FOLDER}/{other} is none of the challenge's images; remove it")
    if tuple(class_ids) != read_class_ids(source):
        raise UserError(
            f"the model tells {len(class_ids)} classes apart, and wnids.txt names others; name a "
            "model that was trained on this data set with -m"
        )


def write_submission(
    path: Path,
    model: keras.Model,
    source: ImageSource,
    class_ids: Sequence[str],
    *,
    count: int,
    stored_size: int,
    image_size: int,
    batch_size: int,
    flip: bool = False,
) -> None:
    """Write the most probable class of each of ``count`` test images to ``path``.

    Args:
        path: Written whole or not at all.
        model: Takes images, gives probabilities.
        source: The data set; see ``check_complete``.
        class_ids: The model's, in label order.
        count: Test images that the challenge has.
        stored_size: Pixels a side that ``build_dataset.py`` stores.
        image_size: Pixels a side that the model was trained on.
        batch_size: Images a call.
        flip: Average with the predictions for the mirrored images.

    Raises:
        UserError: An image cannot be decoded, or the file cannot be written.
    """
    check_complete(source, class_ids, count)
    names = official_names(count)
    labels: list[int] = []
    bar = progress_bar("test images", count)
    try:
        for images in _image_batches(source, names, stored_size, batch_size):
            pixels = resize_images(images, image_size)
            labels += predict(model, pixels, batch_size, flip).argmax(axis=1).tolist()
            bar.update(len(labels))
    finally:
        remove_bar(bar)
    lines = (f"{name} {class_ids[label]}\n" for name, label in zip(names, labels, strict=True))
    with written_whole(path) as unfinished:
        unfinished.write_text("".join(lines))


def _image_batches(
    source: ImageSource, names: Sequence[str], size: int, batch_size: int
) -> Iterator[np.ndarray]:
    """Yield uint8 (n, size, size, 3) with n = ``batch_size``, and at the end what is left."""
    unlabelled = [LabelledImage(f"{FOLDER}/{name}", 0) for name in names]
    waiting = np.empty((0, size, size, 3), np.uint8)
    for chunk in decode_in_order(source, unlabelled, size):
        waiting = np.concatenate([waiting, chunk.images])
        while len(waiting) >= batch_size:
            yield waiting[:batch_size]
            waiting = waiting[batch_size:]
    if len(waiting):
        yield waiting
