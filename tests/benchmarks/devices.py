"""One device, four, and two processes: the losses of each epoch, and the price of a step.

    python tests/benchmarks/devices.py --hdf5 tiny-imagenet-20/hdf5

Trains recipe "demo" on JAX, on one machine's processor. First from where one device came to in two
epochs, at a tenth of the rate: there a step lets what rounding did fade, all ways must agree, and a
run at twice that rate shows how far off a wrong gradient would be. Then from the beginning at the
recipe's rates, where rounding grows and they part; beside them a run whose sums are rounded
otherwise, and one of another seed. What working in parts costs is shown where all share the same
cores; real devices and networks are not.
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

ROOT = Path(__file__).resolve().parent.parent.parent
XLA_FLAGS = {
    "four virtual devices": "--xla_force_host_platform_device_count=4",
    "one device, rounded otherwise": "--xla_cpu_enable_fast_math=true",
}
Ways = dict[str, Sequence[Sequence[str]]]
"""The arguments of each process of each way to train."""


FIRST_EPOCHS = 2
STABLE_RATE = 0.005


def main() -> None:
    """Train in each way, and print a table for each kind of rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdf5", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    data = ["--hdf5", str(args.hdf5)]
    fresh = [*data, "-r", "demo", "-b", "64", "-n"]
    with tempfile.TemporaryDirectory() as start:
        train([[*fresh, str(FIRST_EPOCHS)]], output=start)
        gone_on = [*data, "-m", start, "-n", str(FIRST_EPOCHS + 1), "-l"]
        stable, twice = ([*gone_on, str(rate)] for rate in (STABLE_RATE, 2 * STABLE_RATE))
        at_twice = {"one device, at twice the rate": [twice]}
        print_table(f"going on at a rate of {STABLE_RATE}", ways(stable) | at_twice)
    fresh.append(str(args.epochs))
    others = {
        "one device, rounded otherwise": [fresh],
        "one device, another seed": [[*fresh, "--seed", "43"]],
    }
    print_table("at the recipe's rates", ways(fresh) | others)


def ways(arguments: Sequence[str]) -> Ways:
    """Return what is to give equal losses."""
    return {
        "one device": [arguments],
        "four virtual devices": [arguments],
        "two processes": team(arguments, 2),
    }


def print_table(title: str, ways: Ways) -> None:
    """Train in each way; print the losses beside the first way's."""
    print(f"| {title} | training loss by epoch | beside one device | images a second |")
    print("| --- | --- | --- | --- |")
    alone = None
    for way, commands in ways.items():
        result = train(commands, XLA_FLAGS.get(way, ""))
        losses = result["loss"]
        alone = alone or losses
        apart = [f"{ours / theirs - 1:+.4%}" for ours, theirs in zip(losses, alone, strict=True)]
        print(
            f"| {way} | {', '.join(f'{loss:.4f}' for loss in losses)} | {', '.join(apart)} | "
            f"{result['images_per_second']:,.0f} |",
            flush=True,
        )


def team(arguments: Sequence[str], processes: int) -> list[list[str]]:
    """Return the arguments of each of several processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    flags = ["--processes", str(processes), "--coordinator", f"127.0.0.1:{port}", "--process-id"]
    return [[*arguments, *flags, str(number)] for number in range(processes)]


def train(
    commands: Sequence[Sequence[str]], xla_flags: str = "", output: str | None = None
) -> dict:
    """Run the processes of a training; return its losses, and its speed in the last epoch."""
    settings = {"XLA_FLAGS": xla_flags, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = output or scratch
        running = [
            subprocess.Popen(
                [sys.executable, ROOT / "model_train.py", *arguments, "-o", folder],
                env={**os.environ, **settings},
                stdout=subprocess.DEVNULL,
            )
            for arguments in commands
        ]
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise SystemExit("a process failed")
        numbers = json.loads((Path(folder) / "metric_values.json").read_text())
        log = (Path(folder) / "run.jsonl").read_text().splitlines()
    return {"loss": numbers["loss"], **json.loads(log[-1])}


if __name__ == "__main__":
    main()
