"""Feed the images of a split to Keras, batch by batch, each a function of (seed, epoch, step).

Nothing is carried from one batch to the next, so a resumed run sees an uninterrupted run's
batches. Threads prefetch the next batches while the network works on one.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from pipeline.backend import cores
from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.preprocessing.augmentation import augment
from pipeline.preprocessing.images import resize_images
from pipeline.randomness import BatchDraws, random_stream
from pipeline.recipe import Augmentation

Batch = tuple[np.ndarray, ...]
"""(images, labels), and with a shard the sample weights too."""
NO_AUGMENTATION = Augmentation()
THREADS = min(cores(), 4)
"""More would contend for the GIL, which is held for much of a batch."""
POOL = ThreadPoolExecutor(THREADS, "batches")
"""Of all generators: TensorFlow keeps those that it was given until the process ends."""


@dataclass
class _Epoch:
    """What the batches of an epoch depend on, and those in preparation."""

    number: int
    """From 1."""
    image_size: int
    order: np.ndarray
    """Rows of the data set, int64 (n,)."""
    last_step: int = -1
    """The last one requested; later ones are prefetched only where steps come in order."""
    begun: bool = False
    """Whether Keras has begun the epoch, and asks not only to see shapes."""
    finished: bool = False
    """Whether its last batch was taken."""
    prefetched: dict[int, Future[Batch]] = field(default_factory=dict)
    """By step."""
    seconds_waited: float = 0.0


class HDF5Generator(keras.utils.PyDataset):
    """Batches of uint8 RGB images (n, size, size, 3) and one-hot labels, float32 (n, classes).

    The last batch of an epoch may be smaller, unless ``shard`` is given. Each epoch of a ``fit``
    has its own order and augmentation. Pass ``shuffle=False`` to ``fit``: this class shuffles.

    Args:
        dataset: The split.
        batch_size: Clipped to the size of the split.
        seed: Decides the order and the augmentation.
        shuffle: Draw a new order each epoch.
        image_size: Maps an epoch, from 1, to its image size in pixels; None: as stored.
        augmentation: The default is none.
        shard: The positions in each batch whose images to make; batches then end with sample
            weights, float32 (n,). A smaller last batch is padded with copies of its own images, of
            weight 0: the loss does not count them, batch norm's statistics do. None: whole batches,
            without weights.
    """

    def __init__(
        self,
        dataset: HDF5Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        image_size: Callable[[int], int] | None = None,
        augmentation: Augmentation = NO_AUGMENTATION,
        shard: range | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.batch_size = min(batch_size, len(dataset))
        self._seed = seed
        self._shuffle = shuffle
        self._image_size = image_size or (lambda epoch: dataset.images.shape[1])
        self._augmentation = augmentation
        self._shard = shard
        self._first_flip = random_stream(seed, "first flip").integers(2, size=len(dataset))
        self.failure: UserError | None = None
        """Why a batch could not be made; TensorFlow raises an error of its own instead."""
        self.begin_epoch(1)

    def begin_epoch(self, epoch: int) -> None:
        """Make the batches of ``epoch``, from 1."""
        order = np.arange(len(self.dataset))
        if self._shuffle:
            random_stream(self._seed, "shuffle", epoch).shuffle(order)
        self._epoch = _Epoch(epoch, self._image_size(epoch), order)

    def on_epoch_begin(self) -> None:
        """Move to the next epoch if this one is finished; called by Keras.

        So a plain ``fit`` goes from epoch to epoch; where ``EpochStart`` sets each, nothing moves
        here. Keras also begins an epoch, and asks for some batches, only to see their shapes.
        """
        if self._epoch.finished:
            self.begin_epoch(self._epoch.number + 1)
        self._epoch.begun = True

    @property
    def order(self) -> np.ndarray:
        """The rows of the data set in the epoch's order, int64 (n,)."""
        return self._epoch.order

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        """Return batch ``step``, from 0, of the epoch.

        Raises:
            IndexError: There is no such step.
            UserError: The file was truncated since it was opened.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"batch {step} of {len(self)}")
        epoch = self._epoch
        in_order = step in (0, epoch.last_step + 1)
        epoch.last_step = step
        steps = range(step, min(step + 1 + THREADS * in_order, len(self)))
        epoch.prefetched = {
            later: epoch.prefetched.get(later) or POOL.submit(self._make_batch, epoch, later)
            for later in steps
        }
        started = time.perf_counter()
        try:
            batch = epoch.prefetched.pop(step).result()
        except UserError as error:
            self.failure = error
            raise
        epoch.seconds_waited += time.perf_counter() - started
        if epoch.begun and step == len(self) - 1:
            epoch.finished = True
        return batch

    @property
    def seconds_waited(self) -> float:
        """Seconds that this epoch waited for batches.

        An upper bound of the device's idle time: backends request batches while it is busy.
        """
        return self._epoch.seconds_waited

    def for_fit(self) -> Any:
        """Return what to give to ``fit``: on TensorFlow a ``tf.data.Dataset`` of the batches.

        Keras would wrap a PyDataset in one with autotuning, whose ``fit`` often returns only after
        1.28, 2.56, 5.12, … seconds: up to twice the time. Call it anew where the image size
        changes; shards are for JAX.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        pixels = (None, self._epoch.image_size, self._epoch.image_size, 3)
        batches = tf.data.Dataset.from_generator(
            lambda: (self[step] for step in range(len(self))),
            output_signature=(
                tf.TensorSpec(pixels, "uint8"),
                tf.TensorSpec((None, len(self.dataset.classes)), "float32"),
            ),
        )
        options = tf.data.Options()
        options.autotune.enabled = False
        counted = tf.data.experimental.assert_cardinality(len(self))
        return batches.apply(counted).prefetch(1).with_options(options)

    def _make_batch(self, epoch: _Epoch, step: int) -> Batch:
        rows = epoch.order[step * self.batch_size : (step + 1) * self.batch_size]
        count = len(rows)
        positions = np.arange(count) if self._shard is None else np.array(self._shard)
        is_padding = positions >= count
        positions = positions % count  # padding repeats the batch's own images
        rows = rows[positions]
        images = self.dataset.images[rows]
        labels = np.zeros((len(rows), len(self.dataset.classes)), np.float32)
        labels[np.arange(len(rows)), self.dataset.labels[rows]] = 1
        if self._augmentation != NO_AUGMENTATION:
            rng = random_stream(self._seed, "augment", epoch.number, step)
            draws = BatchDraws(rng, count, positions)
            mirror = self._mirrored(epoch.number, rows, draws)
            augmentation = self._augmentation.in_epoch(epoch.number)
            images, labels = augment(images, labels, mirror, augmentation, draws)
        images = resize_images(images, epoch.image_size)
        if self._shard is not None:
            return images, labels, (~is_padding).astype(np.float32)
        return images, labels

    def _mirrored(self, epoch: int, rows: np.ndarray, draws: BatchDraws) -> np.ndarray:
        if self._augmentation.flip == "random":
            return draws.uniform(0, 1) < 0.5
        if self._augmentation.flip == "alternating":
            return (self._first_flip[rows] + epoch) % 2 == 0
        return np.zeros(len(rows), bool)
