"""Feed the images of a split to Keras, batch by batch, each a function of (seed, epoch, step).

Nothing is carried from one batch to the next, so a resumed run sees the batches that a run never
stopped would have seen. While the network works on a batch, a thread prepares the next.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import keras
import numpy as np

from pipeline.augmentation import AffineRanges, affine_matrices, move_pixels
from pipeline.hdf5_dataset import HDF5Dataset
from pipeline.images import resize_image
from pipeline.randomness import random_stream

Batch = tuple[np.ndarray, np.ndarray]
FLIPS = ("none", "random", "alternating")


class HDF5Generator(keras.utils.PyDataset):
    """Batches of uint8 RGB images (n, size, size, 3) and one-hot labels, float32 (n, classes).

    The last batch of an epoch holds what is left. Use as a context manager, or call ``close``;
    pass ``shuffle=False`` to ``fit``, for the epoch is shuffled here, over all images.

    Args:
        dataset: The split.
        batch_size: Images a batch.
        seed: Decides the order and the augmentation.
        shuffle: Draw a new order each epoch.
        ranges: How far images are moved; None leaves them as they are.
        flip: "none", "random" or "alternating"; see ``Recipe.flip``.
    """

    def __init__(
        self,
        dataset: HDF5Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        ranges: AffineRanges | None = None,
        flip: str = "none",
    ) -> None:
        super().__init__()
        if flip not in FLIPS:
            raise ValueError(f"unknown flip {flip!r}; known: {', '.join(FLIPS)}")
        self.dataset = dataset
        self.batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._ranges = ranges
        self._flip = flip
        self._thread = ThreadPoolExecutor(1, "next-batch")
        self._prepared: dict[int, Future[Batch]] = {}
        self.begin_epoch(1, dataset.images.shape[1])

    def begin_epoch(self, epoch: int, image_size: int) -> None:
        """Yield the batches of ``epoch`` from now on, with images of ``image_size`` pixels."""
        self._prepared.clear()
        self._epoch = epoch
        self._image_size = image_size
        self._order = np.arange(len(self.dataset))
        if self._shuffle:
            random_stream(self._seed, "shuffle", epoch).shuffle(self._order)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        """Return batch ``step``, from 0, of the epoch."""
        prepared = self._prepared.pop(step, None)
        self._prepared.clear()
        if step + 1 < len(self):
            self._prepared[step + 1] = self._thread.submit(self._make_batch, step + 1)
        return prepared.result() if prepared else self._make_batch(step)

    def _make_batch(self, step: int) -> Batch:
        rows = self._order[step * self.batch_size : (step + 1) * self.batch_size]
        images = self.dataset.images[rows]
        stream = random_stream(self._seed, "augment", self._epoch, step)
        mirror = self._mirrored(rows, stream)
        if self._ranges is not None or mirror.any():
            parameters = (self._ranges or AffineRanges()).draw(stream, images.shape[1], mirror)
            images = move_pixels(images, affine_matrices(parameters, images.shape[1]))
        if images.shape[1] != self._image_size:
            images = np.stack([resize_image(image, self._image_size) for image in images])
        labels = np.eye(len(self.dataset.class_ids), dtype=np.float32)[self.dataset.labels[rows]]
        return images, labels

    def _mirrored(self, rows: np.ndarray, stream: np.random.Generator) -> np.ndarray:
        if self._flip == "random":
            return stream.random(len(rows)) < 0.5
        if self._flip == "alternating":
            first = random_stream(self._seed, "first flip").integers(2, size=len(self.dataset))
            return (first[rows] + self._epoch) % 2 == 0
        return np.zeros(len(rows), bool)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> "HDF5Generator":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
