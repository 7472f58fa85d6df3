"""Peak memory of training and evaluating over a data set of several gigabytes.

    python tests/benchmarks/memory.py --gigabytes 3
    python tests/benchmarks/memory.py --hdf5 tiny-imagenet-200/hdf5 -r quick

Counts anonymous resident memory (Linux): what the process needs, not the file's pages that the
system keeps in memory while there is room. In the first form the network is thin, so that its size
does not hide that of the data; in the second it is a recipe's own, on real data, for a while.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from conftest import ROOT, train_command  # noqa: E402

from pipeline.classes import Classes  # noqa: E402
from pipeline.io.hdf5_writer import HDF5Writer  # noqa: E402

IMAGE_BYTES, CHUNK, CLASSES = 64 * 64 * 3, 5000, 20


def write_split(folder: Path, split: str, images: int) -> None:
    """Write noise in the layout of build_dataset.py."""
    stream = np.random.default_rng(0)
    pixels = stream.integers(256, size=(CHUNK, 64, 64, 3), dtype=np.uint8)
    ids = [f"n{label:08d}" for label in range(CLASSES)]
    writer = HDF5Writer(
        folder / f"{split}.hdf5", split, labels=stream.integers(CLASSES, size=images),
        file_names=[b"noise.png"] * images, image_size=64, classes=Classes(ids, ids), seed=0,
    )  # fmt: skip
    with writer:
        for _ in range(images // CHUNK):
            writer.append(pixels, [b""] * CHUNK)
        writer.complete("", "")


def peak_anonymous_bytes(command: list[str], seconds: float | None = None) -> int:
    """Run ``command``, or its first ``seconds``; return the most anonymous memory it had."""
    peak, started = 0, time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines)])
            time.sleep(0.05)
            if seconds and time.monotonic() - started > seconds:
                process.kill()
                return peak
    assert process.wait() == 0
    return peak


def main() -> None:
    """Measure for the size that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3)
    parser.add_argument("--hdf5", type=Path, help="a real build to train on instead")
    parser.add_argument("-r", "--recipe", default="quick")
    parser.add_argument("--seconds", type=float, default=120, help="how long to train on it")
    args = parser.parse_args()
    if args.hdf5:
        measure_recipe(args.recipe, args.hdf5, args.seconds)
    else:
        measure_noise(args.gigabytes)


def measure_recipe(recipe: str, hdf5: Path, seconds: float) -> None:
    """Train a recipe on a real build for some time."""
    with tempfile.TemporaryDirectory() as name:
        train = ["model_train.py", "-r", recipe, "--hdf5", hdf5.resolve(), "-o", name]
        peak = peak_anonymous_bytes([sys.executable, *map(str, train)], seconds)
    print(f"recipe {recipe}, first {seconds:.0f} s: peak {peak / 1e9:.2f} GB")


def measure_noise(most_gigabytes: float) -> None:
    """Train and evaluate a thin network on little and on much made data."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gigabytes in (0.1, most_gigabytes):
            images = max(1, round(gigabytes * 1e9 / IMAGE_BYTES / CHUNK)) * CHUNK
            hdf5, output = folder / f"hdf5-{images}", folder / f"run-{images}"
            hdf5.mkdir()
            write_split(hdf5, "train", images)
            write_split(hdf5, "val", CHUNK)
            data = ("--hdf5", hdf5)
            train = train_command("-r", "thin", "-n", 1, "-b", 256, *data, "-o", output)
            peak_train = peak_anonymous_bytes(train)
            model = next(output.glob("*.keras"))
            evaluate = ["model_eval.py", "-m", model, "--split", "train", *data]
            peak_eval = peak_anonymous_bytes([sys.executable, *map(str, evaluate)])
            print(
                f"{images * IMAGE_BYTES / 1e9:.2f} GB of pixels: peak {peak_train / 1e9:.2f} GB "
                f"training, {peak_eval / 1e9:.2f} GB evaluating",
                flush=True,
            )


if __name__ == "__main__":
    main()
