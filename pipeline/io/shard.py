"""How a batch is sharded among processes."""

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
    batch_size: int
    """Images in a whole batch; a smaller one is padded to it."""

    def places(self) -> np.ndarray:
        """Return the shard's places in a batch, int64."""
        size = self.batch_size // self.shards
        return np.arange(self.index * size, (self.index + 1) * size)
