"""UserError, the first line of other errors, and what says that memory is full."""

import re

OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|ResourceExhausted|failed to map")
"""Matches the out-of-memory errors of JAX, of TensorFlow and of the dynamic loader."""


class UserError(Exception):
    """Something expected went wrong: the message says what, where, and what to do.

    The scripts print it as one line, without a traceback, and end with status 2.
    """


class WriteError(UserError):
    """The system refused to write a file."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that the machine or a device ran out of memory."""
    return isinstance(error, MemoryError) or bool(OUT_OF_MEMORY.search(repr(error)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
