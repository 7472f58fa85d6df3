"""Decode many images on several cores, in order, in bounded memory."""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from pipeline.backend import cores
from pipeline.dataset.image_source import ImageSource
from pipeline.dataset.tiny_imagenet import LabelledImage
from pipeline.errors import UserError
from pipeline.preprocessing.images import centre_crop, decode_image, resize_image

CHUNK_PIXELS = 256 * 64 * 64
"""Pixels of the images that a thread decodes, and a write takes, at once: 3 MB."""
MOST_THREADS = 3
"""More wait for the GIL between two native calls: on two cores, two threads decoded 1.33 times
as fast as one, and eight slower than one (``tests/benchmarks/compare.py --only threads``)."""

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class DecodedChunk:
    """Consecutive images of a split."""

    images: np.ndarray
    """uint8 RGB (n, size, size, 3)."""
    labels: np.ndarray
    """int64 (n,)."""
    channel_sums: np.ndarray
    """float64 (3,), exact: the sum of all pixels in each channel."""
    files: list[bytes]
    """The size and CRC-32 of each image's file."""


def decode_in_order(
    source: ImageSource, images: Sequence[LabelledImage], size: int
) -> Iterator[DecodedChunk]:
    """Read and decode ``images``, in their order; resize their middle to (size, size, 3).

    Raises:
        UserError: An image cannot be decoded; names it.
    """
    count = max(1, CHUNK_PIXELS // size**2)
    chunks = [images[start : start + count] for start in range(0, len(images), count)]
    return _map_in_order(lambda chunk: _decode_chunk(source, chunk, size), chunks)


def find_undecodable(
    source: ImageSource, images: Sequence[LabelledImage]
) -> dict[LabelledImage, str]:
    """Return the images that cannot be decoded, each with the reason."""

    def reason(image: LabelledImage) -> str | None:
        try:
            decode_image(source.read(image.name))
        except (ValueError, UserError) as error:
            return str(error)
        return None

    reasons = zip(images, _map_in_order(reason, images), strict=True)
    return {image: why for image, why in reasons if why is not None}


def _decode_chunk(source: ImageSource, chunk: Sequence[LabelledImage], size: int) -> DecodedChunk:
    pixels = np.empty((len(chunk), size, size, 3), np.uint8)
    files = []
    for image, out in zip(chunk, pixels, strict=True):
        data = source.read(image.name)
        try:
            out[:] = resize_image(centre_crop(decode_image(data)), size)
        except ValueError as error:
            raise UserError(
                f"cannot decode {image.name}: {error}; replace it, or leave such images "
                "out with --skip-corrupt"
            ) from error
        files.append(b"%d %d" % (len(data), zlib.crc32(data)))
    return DecodedChunk(
        images=pixels,
        labels=np.array([image.label for image in chunk], np.int64),
        channel_sums=np.array(cv2.sumElems(pixels.reshape(-1, size, 3))[:3]),
        files=files,
    )


def _map_in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Map over threads as ``Executor.map`` does, but never run far ahead of the reader."""
    workers = min(cores(), MOST_THREADS)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
