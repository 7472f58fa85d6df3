"""How a batch is sharded among processes."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """The part of each batch that one of several processes makes: contiguous, all of one size.

    A smaller batch, the last of an epoch, is padded with images of its own. The padding counts
    nothing in the loss, and a little in batch norm's statistics.
    """

    index: int
    """Of the process, from 0."""
    shards: int
    """How many processes share a batch."""
    multiple: int
    """Batches are padded to a multiple of this many images."""

    def places(self, count: int) -> np.ndarray:
        """Return the shard's places, int64, in a batch of ``count``; from there on is padding."""
        size = math.ceil(count / self.multiple) * self.multiple // self.shards
        return np.arange(self.index * size, (self.index + 1) * size)
