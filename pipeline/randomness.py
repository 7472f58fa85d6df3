"""Every random choice is a function of the seed and of where in the run it is made.

No stream is carried from one batch to the next, so there is none to save, and a resumed run
draws what the run that was never stopped would have drawn.
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
