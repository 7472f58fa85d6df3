"""The one error that a user can act on, and what others say in brief."""


class UserError(Exception):
    """Something expected went wrong: the message says what, where, and what to do.

    The scripts print it as one line, without a traceback, and end with status 2.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
