"""The processes of a run meet before JAX connects them, and each notices when another ends.

While JAX waits for the others, no signal reaches it; it does not compare their settings; and where
one is missing or ends, it aborts in words of its own. So all connect to the coordinator's port
first, and stay connected: however a process ends, the system closes its connections.
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
from pipeline.printing import end_process, say

TIMEOUT_S = 300
"""How long a process waits for the others."""
HANDSHAKE_S = 5
"""How long the primary waits for the handshake of one that has connected."""
GO, DIFFER, DONE = b"go", b"differ", b"done"
DIFFERENT = (
    "the processes differ in code, JAX or Keras version, recipe, settings, number of processes or "
    "build of the data; start all with the same command"
)
LOST = (
    "error: training stopped, since another process of the run ended; start all of them again, "
    "with -m DIR if an epoch is finished"
)


@contextmanager
def rendezvous(
    address: tuple[str, int], process_id: int, processes: int, settings: str
) -> Iterator[None]:
    """Wait until all processes have met; within the context, end when another one ends.

    Args:
        address: Host and port of the primary.
        process_id: Of this process; 0 is the primary.
        processes: How many there are.
        settings: Must be equal in all.

    Raises:
        UserError: They do not meet; says why.
    """
    deadline = time.monotonic() + TIMEOUT_S
    digest = hashlib.sha256(f"{processes} {settings}".encode()).hexdigest()
    handshake = f"{process_id} {digest}\n".encode()
    try:
        if process_id:
            others = [_join(address, handshake, deadline)]
        else:
            others = _gather(address, handshake, processes, deadline)
    except TimeoutError as error:
        raise UserError(
            f"the {processes} processes did not all connect within {TIMEOUT_S} s ({error}); start "
            "each with its own --process-id, and the same --coordinator, which all can reach"
        ) from error
    ending = threading.Event()
    told = (others, process_id == 0, ending, os.dup(2))
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


def _gather(
    address: tuple[str, int], handshake: bytes, processes: int, deadline: float
) -> list[socket.socket]:
    """Return the primary's connections to all others.

    Raises:
        UserError: It cannot listen at ``address``, or settings differ.
        TimeoutError: One did not come.
    """
    met: dict[int, tuple[socket.socket, bytes]] = {}  # connection, digest of the settings
    with _listen(address[1]) as listener, _connect(address, deadline) as own:
        with suppress(OSError):
            own.sendall(handshake)  # shows that the address leads here
        say(f"waiting for {processes - 1} more to come to port {address[1]}")
        while len(met) < processes:
            listener.settimeout(max(deadline - time.monotonic(), 0.001))
            connection, _ = listener.accept()
            connection.settimeout(HANDSHAKE_S)
            with suppress(OSError, ValueError):  # another program's connection
                process_id, digest = connection.makefile("rb").readline(100).split()
                if int(process_id) in range(processes):
                    met[int(process_id)] = connection, digest  # replaces one that was started again
            for process_id, (other, _) in list(met.items()):
                if wait([other], 0):  # none has more to say: it has ended meanwhile
                    del met[process_id]
    same = len({digest for _, digest in met.values()}) == 1
    others = [met[process_id][0] for process_id in range(1, processes)]
    for other in others:
        with suppress(OSError):
            other.sendall(GO if same else DIFFER)
    if not same:
        raise UserError(DIFFERENT)
    return others


def _join(address: tuple[str, int], handshake: bytes, deadline: float) -> socket.socket:
    """Return another process's connection to the primary, once that has met all.

    Raises:
        UserError: ``address`` is not the primary's, or settings differ.
        TimeoutError: The primary did not answer.
    """
    primary = _connect(address, deadline)
    try:
        primary.sendall(handshake)
        primary.settimeout(max(deadline - time.monotonic(), 0.001))
        word = primary.recv(len(DIFFER))
    except TimeoutError:
        raise
    except OSError:
        word = b""
    if word == DIFFER:
        raise UserError(DIFFERENT)
    if word != GO:
        raise UserError(
            f"the process at {address[0]}:{address[1]} ended, or is not this run's first; start "
            "all again, each with its own --process-id"
        )
    return primary


def _listen(port: int) -> socket.socket:
    """Return a socket that listens to every address of this host, IPv6 too where there is it."""
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
    """Return a connection to ``address``, once a process listens there."""
    reason = "nobody listens"
    while True:
        try:
            connection = socket.create_connection(address, HANDSHAKE_S)
            # TCP lets a socket connect to itself where nobody listens
            if connection.getsockname() != connection.getpeername():
                return connection
            connection.close()
        except (OSError, UnicodeError) as error:
            unknown = isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN
            if unknown or isinstance(error, UnicodeError):
                raise UserError(
                    f"cannot resolve the host name {address[0]}; correct --coordinator"
                ) from error
            reason = error.strerror or error  # where no name server answers, one may soon
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address[0]}: {reason}")
        time.sleep(0.2)


def _watch(
    others: list[socket.socket], is_primary: bool, ending: threading.Event, terminal: int
) -> None:
    """End this process when another ends before it is done, with a line to ``terminal``."""
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
            # A signal sent to all may end this one too; but where the primary ends, JAX aborts.
            if not ending.wait(1 if is_primary else 0):
                end_process(1, terminal, LOST)
