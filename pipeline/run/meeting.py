"""The processes of a run meet before JAX knows of any, and each notices when another ends.

JAX waits for the others where no signal reaches it, compares nothing before all is distributed, and
aborts in its own words where one does not come or ends. So all meet at the coordinator's port
first, and the connections stay open: a process that ends, however it ends, closes its own.
"""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait

from pipeline.errors import UserError
from pipeline.printing import say
from pipeline.progress import clear_line

PATIENCE_S = 300
"""So long a process waits for the others."""
GREETING_S = 5
"""So long the primary waits for what a process that has connected says."""
GO, OTHERS, DONE = b"go", b"others", b"done"
DIFFERENT = (
    "the processes have not the same recipe, settings, number of processes and build of the data; "
    "start all with the same command"
)
LOST = (
    "error: training stopped, since another process of the run ended; start all of them again, "
    "with -m DIR to resume"
)


@contextmanager
def meeting(address: tuple[str, int], number: int, processes: int, settings: str) -> Iterator[None]:
    """Wait until all processes are there, and within the context end when another one ends.

    Args:
        address: Host and port of the primary.
        number: Of this process; 0 is the primary.
        processes: How many there are.
        settings: What all must have alike.

    Raises:
        UserError: They do not come together; says why.
    """
    deadline = time.monotonic() + PATIENCE_S
    try:
        others = _meet(address, number, f"{processes} {settings}", processes, deadline)
    except TimeoutError as error:
        raise UserError(
            f"the {processes} processes did not come together in {PATIENCE_S} s; start each with "
            "its own --process-id, and the same --coordinator, which all can reach"
        ) from error
    ending = threading.Event()
    told = (others, number == 0, ending, os.dup(2))
    threading.Thread(target=_watch, args=told, daemon=True).start()
    farewell = b""
    try:
        yield
        farewell = DONE
    finally:
        ending.set()
        for other in others:
            with suppress(OSError):
                other.sendall(farewell)
                other.shutdown(socket.SHUT_WR)


def _meet(
    address: tuple[str, int], number: int, settings: str, processes: int, deadline: float
) -> list[socket.socket]:
    """Return connections: the primary's to all others, any other's to the primary."""
    greeting = f"{number} {hashlib.sha256(settings.encode()).hexdigest()}\n".encode()
    if number:
        primary = _connect(address, deadline)
        primary.sendall(greeting)
        _hear(primary, address, deadline)
        return [primary]
    with _listen(address[1]) as listener, _connect(address, deadline) as own:
        own.sendall(greeting)  # shows that the address leads here
        say(f"waiting for {processes - 1} more to come to port {address[1]}")
        met = _gather(listener, processes, deadline)
    same = len({digest for _, digest in met.values()}) == 1
    others = [met[other][0] for other in range(1, processes)]
    for other in others:
        with suppress(OSError):
            other.sendall(GO if same else OTHERS)
    if not same:
        raise UserError(DIFFERENT)
    return others


def _listen(port: int) -> socket.socket:
    """Return what all can connect to, by IPv6 too where the system has it."""
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
    except OSError as error:
        raise UserError(
            f"cannot listen on port {port} ({error.strerror}); give all processes another "
            "--coordinator, and only one the --process-id 0"
        ) from error


def _connect(address: tuple[str, int], deadline: float) -> socket.socket:
    """Return a connection to ``address`` once somebody listens there."""
    while True:
        try:
            connection = socket.create_connection(address, GREETING_S)
        except (socket.gaierror, UnicodeError) as error:
            raise UserError(
                f"no host of the name {address[0]} is known here; correct --coordinator"
            ) from error
        except OSError:
            connection = None
        # a socket that meets itself comes of connecting where nobody listens
        if connection and connection.getsockname() != connection.getpeername():
            return connection
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)


def _gather(
    listener: socket.socket, processes: int, deadline: float
) -> dict[int, tuple[socket.socket, bytes]]:
    """Return each process's connection and the digest of its settings, by its number."""
    met = {}
    while len(met) < processes:
        listener.settimeout(max(deadline - time.monotonic(), 0.001))
        connection, _ = listener.accept()
        connection.settimeout(GREETING_S)
        with suppress(OSError, ValueError):  # whatever else knocks at this port
            number, digest = connection.makefile("rb").readline(100).split()
            if int(number) in range(processes):
                met[int(number)] = connection, digest  # the later one, if one was started again
        for number, (other, _) in list(met.items()):
            if wait([other], 0):  # none has more to say: it has ended meanwhile
                del met[number]
    return met


def _hear(primary: socket.socket, address: tuple[str, int], deadline: float) -> None:
    """Wait for the primary's word.

    Raises:
        UserError: It does not let this process take part.
    """
    primary.settimeout(max(deadline - time.monotonic(), 0.001))
    try:
        word = primary.recv(len(OTHERS))
    except ConnectionError:
        word = b""
    if word == OTHERS:
        raise UserError(DIFFERENT)
    if word != GO:
        raise UserError(
            f"the process at {address[0]}:{address[1]} ended, or is not this run's first; start "
            "all again, each with its own --process-id"
        )


def _watch(
    others: list[socket.socket], is_primary: bool, ending: threading.Event, terminal: int
) -> None:
    """End this process when one of the others ends before it is done, with a line to ``terminal``.

    At that moment stderr itself may be silenced.
    """
    others = list(others)
    for other in others:
        other.settimeout(None)
    while others:
        for other in wait(others):
            others.remove(other)
            try:
                word = other.recv(len(DONE))
            except OSError:
                word = b""
            if word == DONE:
                continue
            # A signal to all is for each to answer; but the primary's end would have JAX abort.
            if not ending.wait(1 if is_primary else 0):
                clear_line()
                os.write(terminal, f"{LOST}\n".encode())
                os._exit(1)
