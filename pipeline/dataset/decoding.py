"""Decode many images on several cores, in order, in bounded memory."""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from pipeline.backend import cores
from pipeline.dataset.image_source import ImageSource
from pipeline.errors import UserError
from pipeline.preprocessing.images import centre_crop, decode_image, resize_image

CHUNK_PIXELS = 256 * 64 * 64
"""Pixels of the images that a thread decodes, and a write takes, at once: 3 MB."""
MAX_THREADS = 3
"""More wait for the GIL between two native calls: on two cores, two threads decoded 1.33 times
as fast as one, and eight slower than one (``tests/benchmarks/compare.py --only threads``)."""

Item, Result = TypeVar("Item"), TypeVar("Result")


Chunk = tuple[np.ndarray, list[bytes]]
"""Consecutive images, uint8 RGB (n, size, size, 3), and the size and CRC-32 of each one's file."""


def decode_in_order(source: ImageSource, names: Sequence[str], size: int) -> Iterator[Chunk]:
    """Read and decode the files ``names``, in order; centre-crop and resize to (size, size, 3).

    Raises:
        UserError: An image cannot be decoded; names it.
    """
    count = max(1, CHUNK_PIXELS // size**2)
    chunks = [names[start : start + count] for start in range(0, len(names), count)]
    return _map_in_order(lambda chunk: _decode_chunk(source, chunk, size), chunks)


def find_undecodable(source: ImageSource, names: Sequence[str]) -> dict[str, str]:
    """Return the files that cannot be decoded, each with the reason."""

    def reason(name: str) -> str | None:
        try:
            decode_image(source.read(name))
        except (ValueError, UserError) as error:
            return str(error)
        return None

    reasons = zip(names, _map_in_order(reason, names), strict=True)
    return {name: why for name, why in reasons if why is not None}


def _decode_chunk(source: ImageSource, names: Sequence[str], size: int) -> Chunk:
    pixels, files = np.empty((len(names), size, size, 3), np.uint8), []
    for name, out in zip(names, pixels, strict=True):
        data = source.read(name)
        try:
            out[:] = resize_image(centre_crop(decode_image(data)), size)
        except ValueError as error:
            raise UserError(
                f"cannot decode {name}: {error}; replace it, or leave such images "
                "out with --skip-corrupt"
            ) from error
        files.append(b"%d %d" % (len(data), zlib.crc32(data)))
    return pixels, files


def _map_in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Map over threads as ``Executor.map`` does, but never run far ahead of the reader."""
    workers = min(cores(), MAX_THREADS)
    pool = ThreadPoolExecutor(workers)
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
