"""SIGINT, SIGTERM and SIGHUP end a script, whatever its libraries do with them.

Python raises an exception where a signal finds it, once the main thread is back in Python. A
library may swallow that exception, turn it into an error of its own, or, as XLA's compiler, not
return for minutes. So a watchdog thread ends a process that runs on after ``GRACE_S``, without any
clean-up: files are written atomically, and a folder's next writer clears the rest.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from pipeline.printing import end_process

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Windows lacks the last, which a closed terminal sends."""
GRACE_S = 10
"""How long a script may clean up after a signal."""
_hints: list[Callable[[], str]] = []


class Stopped(KeyboardInterrupt):
    """A signal asks the script to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.last_words = [f"stopped by {name}"]
        with suppress(Exception):  # this must come through
            self.last_words += [hint() for hint in _hints]


@contextmanager
def hint_when_stopped(hint: Callable[[], str]) -> Iterator[None]:
    """Print what ``hint`` returns where a signal ends the script within this context."""
    _hints.append(hint)
    try:
        yield
    finally:
        _hints.remove(hint)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise Stopped on each signal of ``ENDING``; end the process if it does not stop in time."""
    stops: list[Stopped] = []

    def raise_stop(number: int, frame: FrameType | None) -> NoReturn:
        if number != signal.SIGINT:
            signal.signal(number, signal.SIG_IGN)  # once is enough
        stops.append(Stopped(number))
        raise stops[-1]

    heeded = [
        number
        for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name))
        if signal.getsignal(number) != signal.SIG_IGN  # as nohup has it
    ]
    for number in heeded:
        signal.signal(number, raise_stop)
    sys.unraisablehook = _report_swallowed
    ended = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    told = (reader, heeded, ended, os.dup(2))
    threading.Thread(target=_end_in_time, args=told, daemon=True).start()
    try:
        yield
    except Exception:
        if stops:  # and a library made another error of it
            raise stops[-1] from None
        raise
    finally:
        ended.set()
        signal.set_wakeup_fd(-1)
        writer.close()
        for number in heeded:  # an exception in Python's own last steps would change the status
            if signal.getsignal(number) == raise_stop:
                signal.signal(number, signal.SIG_DFL)


def _end_in_time(
    reader: socket.socket, heeded: list[int], ended: threading.Event, terminal: int
) -> None:
    """End the process ``GRACE_S`` after a signal, of which ``reader`` gets the number at once."""
    with reader:
        while number := int.from_bytes(reader.recv(1)):
            if number in heeded and not ended.wait(GRACE_S):
                stop = Stopped(number)
                end_process(stop.status, terminal, *stop.last_words)


def _report_swallowed(lost: "sys.UnraisableHookArgs") -> None:
    """Report an unraisable exception as Python does, unless it is Stopped."""
    if not isinstance(lost.exc_value, Stopped):
        sys.__unraisablehook__(lost)
