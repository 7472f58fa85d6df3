"""One device, four, and two processes: the losses of each epoch, and the price of a step.

    python tests/benchmarks/devices.py --hdf5 tiny-imagenet-20/hdf5

Trains recipe "demo" on JAX, on one machine's processor, and beside it once with another seed, and
once with sums rounded otherwise, as several devices round them. What working in parts costs is
shown where all share the same cores; real devices and networks are not.
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
FOUR_DEVICES = "--xla_force_host_platform_device_count=4"
ROUNDED_OTHERWISE = "--xla_cpu_enable_fast_math=true"


def main() -> None:
    """Train in each way, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdf5", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    common = ["-r", "demo", "-b", "64", "-n", str(args.epochs), "--hdf5", str(args.hdf5)]
    ways = {
        "one device": train([common]),
        "four virtual devices": train([common], FOUR_DEVICES),
        "two processes": train(team(common, 2)),
        "one device, rounded otherwise": train([common], ROUNDED_OTHERWISE),
        "one device, another seed": train([[*common, "--seed", "43"]]),
    }
    alone = ways["one device"]["loss"]
    print("| | training loss by epoch | beside one device | images a second |")
    print("| --- | --- | --- | --- |")
    for way, result in ways.items():
        losses = result["loss"]
        apart = [f"{ours / theirs - 1:+.3%}" for ours, theirs in zip(losses, alone, strict=True)]
        print(
            f"| {way} | {', '.join(f'{loss:.4f}' for loss in losses)} | {', '.join(apart)} | "
            f"{result['images_per_second']:,.0f} |"
        )


def team(arguments: Sequence[str], processes: int) -> list[list[str]]:
    """Return the arguments of each of several processes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    flags = ["--processes", str(processes), "--coordinator", f"127.0.0.1:{port}", "--process-id"]
    return [[*arguments, *flags, str(number)] for number in range(processes)]


def train(commands: Sequence[Sequence[str]], xla_flags: str = "") -> dict:
    """Run the processes of a training; return its losses, and its speed in the last epoch."""
    settings = {"XLA_FLAGS": xla_flags, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
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
