"""Every random choice is a function of the seed and of where in the run it is made.

There is no random state to save: a resumed run draws what an uninterrupted one does.
"""

from zlib import crc32

import numpy as np


def random_stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """Return the generator for one purpose ("shuffle", "augment") at one position (epoch, step).

    Args:
        seed: The run's seed, a non-negative integer.
        purpose: Keeps streams at the same position apart.
        position: Non-negative integers.
    """
    return np.random.default_rng([seed, crc32(purpose.encode()), *position])


class BatchDraws:
    """Draws a value for each of the ``count`` images of a batch, and returns the shard's, n.

    An image's draws do not depend on how the batch is sharded.

    Args:
        rng: The random generator.
        count: Images in the batch.
        positions: Integers (n,), the shard's images; None: all, in order.
    """

    def __init__(
        self, rng: np.random.Generator, count: int, positions: np.ndarray | None = None
    ) -> None:
        self.rng = rng
        """For draws made once per batch."""
        self._count = count
        self._positions = np.arange(count) if positions is None else positions

    def uniform(self, low: float, high: float) -> np.ndarray:
        """Return float64 (n,), ``low`` to ``high``."""
        return self.rng.uniform(low, high, self._count)[self._positions]

    def integers(self, end: int) -> np.ndarray:
        """Return int64 (n,), from 0 to below ``end``."""
        return self.rng.integers(end, size=self._count)[self._positions]

    def beta(self, alpha: float) -> np.ndarray:
        """Return float64 (n,), of Beta(alpha, alpha)."""
        return self.rng.beta(alpha, alpha, self._count)[self._positions]
