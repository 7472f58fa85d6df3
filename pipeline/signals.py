"""SIGINT, SIGTERM and SIGHUP end a script, also where a library swallows the exception.

Python raises an exception wherever a signal finds it. That may be within a library which swallows
it or turns it into an error of its own, so it is raised again every few seconds until the end.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Windows lacks the last, which a closed terminal sends."""
AGAIN_S = 3


class Stopped(KeyboardInterrupt):
    """A signal asks the script to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Stopped for each of ``ENDING``, again until the end."""
    stops: list[Stopped] = []

    def raise_stop(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)  # once is enough
        stops.append(Stopped(number))
        _set_alarm(AGAIN_S, lambda *_: raise_stop(number, None))
        raise stops[-1]

    heeded = [
        number
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name))
        if signal.getsignal(number) != signal.SIG_IGN  # as nohup has it
    ]
    for number in heeded:
        signal.signal(number, raise_stop)
    sys.unraisablehook = _report_swallowed
    try:
        yield
    except Exception:
        if stops:  # and a library made another error of it
            raise stops[0] from None
        raise
    finally:
        _set_alarm(0, signal.SIG_IGN)
        for number in heeded:  # an exception in Python's own last steps would change the status
            if signal.getsignal(number) == raise_stop:
                signal.signal(number, signal.SIG_DFL)


def _report_swallowed(lost: "sys.UnraisableHookArgs") -> None:
    """Report what a callback could not raise, as Python does, but for a signal: it comes again."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)


def _set_alarm(seconds: float, handler: Callable[..., None] | signal.Handlers) -> None:
    """Call ``handler`` after ``seconds``, 0 for never; Windows has no such alarm."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)
