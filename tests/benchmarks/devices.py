"""One device, four, and two processes: the losses of each epoch, and the price of a step.

    python tests/benchmarks/devices.py --hdf5 tiny-imagenet-20/hdf5

Trains recipe "demo" on JAX, on one machine's processor. First for an epoch from where one device
came to in two, at a tenth of the rate: there what rounding did fades, all ways must agree, and a
run at twice that rate shows how far off a wrong gradient would be. Then from the beginning at the
recipe's rates, where rounding grows and they part; beside them a run whose sums are rounded
otherwise, and one of another seed. Speeds are of the last epoch, which in the first table is the
one that compiles too. What working in parts costs is shown where all share the same cores; real
devices and networks are not.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST_EPOCHS = 2
LOW_RATE = 0.005
Arguments = list[str]


class Way(NamedTuple):
    """A way to train."""

    name: str
    commands: Sequence[Arguments]
    """The arguments of each of its processes."""
    xla_flags: str = ""


def main() -> None:
    """Train in each way, and print a table for each kind of rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdf5", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3, help="of the second table's runs")
    args = parser.parse_args()

    def fresh(epochs: int) -> Arguments:
        return ["-r", "demo", "-b", "64", "-n", str(epochs), "--hdf5", str(args.hdf5)]

    with tempfile.TemporaryDirectory() as start:

        def resumed(rate: float) -> Arguments:
            last = str(FIRST_EPOCHS + 1)
            return ["-m", start, "-n", last, "-l", str(rate), "--hdf5", str(args.hdf5)]

        train(Way("start", [fresh(FIRST_EPOCHS)]), start)
        twice = Way("one device, at twice the rate", [resumed(2 * LOW_RATE)])
        print_table(f"resumed at {LOW_RATE}", [*shared(resumed(LOW_RATE)), twice], FIRST_EPOCHS)
    run = fresh(args.epochs)
    rounded = Way("one device, another summation order", [run], "--xla_cpu_enable_fast_math=true")
    seeded = Way("one device, another seed", [[*run, "--seed", "43"]])
    print_table("at the recipe's rates", [*shared(run), rounded, seeded])


def shared(arguments: Arguments) -> list[Way]:
    """Return how one training can be sharded."""
    return [
        Way("one device", [arguments]),
        Way("four virtual devices", [arguments], "--xla_force_host_platform_device_count=4"),
        Way("two processes", processes_of(arguments, 2)),
    ]


def print_table(title: str, ways: Sequence[Way], common_epochs: int = 0) -> None:
    """Train in each way; print the losses of its own epochs beside those of the first way."""
    print(f"| {title} | training loss by epoch | beside one device | images a second |")
    print("| --- | --- | --- | --- |")
    alone = None
    for way in ways:
        result = train(way)
        losses = result["loss"][common_epochs:]
        alone = alone or losses
        apart = [f"{ours / theirs - 1:+.3%}" for ours, theirs in zip(losses, alone, strict=True)]
        print(
            f"| {way.name} | {', '.join(f'{loss:.4f}' for loss in losses)} | {', '.join(apart)} | "
            f"{result['images_per_second']:,.0f} |",
            flush=True,
        )


def processes_of(arguments: Arguments, processes: int) -> list[Arguments]:
    """Return the arguments of each of several processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    flags = ["--processes", str(processes), "--coordinator", f"127.0.0.1:{port}", "--process-id"]
    return [[*arguments, *flags, str(number)] for number in range(processes)]


def train(way: Way, output: str | None = None) -> dict:
    """Run the processes of a training; return its losses, and its speed in the last epoch."""
    settings = {"XLA_FLAGS": way.xla_flags, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = output or scratch
        running = [
            subprocess.Popen(
                [sys.executable, ROOT / "model_train.py", *arguments, "-o", folder],
                env={**os.environ, **settings},
                stdout=subprocess.DEVNULL,
            )
            for arguments in way.commands
        ]
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise SystemExit("a process failed")
        numbers = json.loads((Path(folder) / "metric_values.json").read_text())
        log = (Path(folder) / "run.jsonl").read_text().splitlines()
    return {"loss": numbers["loss"], **json.loads(log[-1])}


if __name__ == "__main__":
    main()
