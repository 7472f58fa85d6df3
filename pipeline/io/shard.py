"""How a batch is sharded among processes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """The part of each batch that one of several processes makes: contiguous, all of one size.

    A smaller batch, the last of an epoch, is padded with images of its own. The padding counts
    nothing in the loss, and a little in batch norm's statistics.
    """

    number: int
    """Of the process, from 0."""
    of: int
    multiple: int
    """What batches are padded to a multiple of."""

    def places(self, count: int) -> np.ndarray:
        """Return the places of a batch of ``count`` in the shard; some may lie beyond its end."""
        size = -(-count // self.multiple) * self.multiple // self.of
        return np.arange(self.number * size, (self.number + 1) * size)
