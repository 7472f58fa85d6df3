"""Time several ways to do one job, in turns, so that a slower moment meets all of them.

Each contestant is a process of its own, with the libraries it needs and no others, and waits for
its turn while another runs. What is compared are ratios within a round.
"""

import importlib
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Round = Callable[[], int]
"""Does the job once and returns how many images that took."""
PACKAGES = ("opencv-python", "h5py", "numpy", "keras", "tensorflow", "torch")
WAIT_SECONDS = 600


@dataclass(frozen=True)
class Contestant:
    """A way to do the job."""

    name: str
    function: str
    """"module:name" of what prepares the job and returns a ``Round``."""
    arguments: tuple[Any, ...] = ()


def contest(contestants: Sequence[Contestant], rounds: int) -> dict[str, list[float]]:
    """Return the images a second of each contestant in each round, after one round not counted."""
    with ExitStack() as stack:
        lines = {c.name: stack.enter_context(_running(c)) for c in contestants}
        rates = {name: [] for name in lines}
        for number in range(rounds + 1):
            for name, line in lines.items():
                rate = _take_turn(name, line)
                if number:
                    rates[name].append(rate)
    return rates


def ratio(rates: dict[str, list[float]], name: str, peer: str) -> str:
    """Return ``name``'s rate over ``peer``'s, as "median (lowest to highest)" of the rounds."""
    ratios = [a / b for a, b in zip(rates[name], rates[peer], strict=True)]
    return f"{_brief(statistics.median(ratios))}x ({_brief(min(ratios))} to {_brief(max(ratios))})"


def median_rate(rates: dict[str, list[float]], name: str) -> str:
    """Return the median images a second of ``name``."""
    rate = statistics.median(rates[name])
    return f"{rate:,.0f}"


def describe_machine() -> str:
    """Return the processor, its cores and the versions of what is measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((s.partition(":")[2].strip() for s in lines if s.startswith("model n")), model)
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _brief(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2f}"


@contextmanager
def _running(contestant: Contestant) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_compete, args=(contestant, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(30)
        process.kill()


def _take_turn(name: str, line: Connection) -> float:
    os.sync()  # so that no one waits for what the one before left to write
    try:
        line.send("go")
        answer = line.recv() if line.poll(WAIT_SECONDS) else "it did not end its round"
    except (EOFError, OSError):
        answer = "it was killed"
    if isinstance(answer, str):
        raise SystemExit(f"{name} failed: {answer}")
    return answer


def _compete(contestant: Contestant, line: Connection) -> None:
    """Do a round at each message, until there are no more."""
    do_round = None
    while True:
        try:
            line.recv()
        except EOFError:
            return
        try:
            if do_round is None:
                module, _, name = contestant.function.partition(":")
                do_round = getattr(importlib.import_module(module), name)(*contestant.arguments)
            started = time.perf_counter()
            images = do_round()
            line.send(images / (time.perf_counter() - started))
        except BaseException as error:
            line.send(repr(error))
            raise
