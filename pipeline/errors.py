"""The one error that a person can act on."""


class UserError(Exception):
    """Something expected went wrong: the message says what, where, and what to do.

    The scripts print it as one line, without a traceback, and end with status 2.
    """
