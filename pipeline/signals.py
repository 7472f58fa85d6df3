"""Signals that ask a script to end do end it, whatever a library makes of them.

Python raises an exception where a signal finds it, and that may be within a library that swallows
it or makes an error of its own of it. So it comes again until the script has ended.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Windows lacks the last, which a closed terminal sends."""
AGAIN_S = 3


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived. Like KeyboardInterrupt, no ``except Exception`` may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def number_of(stop: BaseException) -> int:
    """Return the number of the signal that raised ``stop``."""
    return stop.number if isinstance(stop, Terminated) else int(signal.SIGINT)


def name_of(stop: BaseException) -> str:
    """Return what to call it."""
    return signal.Signals(stop.number).name if isinstance(stop, Terminated) else "Ctrl-C"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt for SIGINT and Terminated for the others, again until the end."""
    stops: list[BaseException] = []

    def raise_stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            stops.append(KeyboardInterrupt())
        else:
            signal.signal(number, signal.SIG_IGN)  # once is enough
            stops.append(Terminated(number))
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
    """Report as Python does what a callback could not pass on; but a signal comes again."""
    if not isinstance(lost.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(lost)


def _set_alarm(seconds: float, handler: Callable[..., None] | signal.Handlers) -> None:
    """Call ``handler`` in so many seconds, 0 for never; Windows has no such thing."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)
