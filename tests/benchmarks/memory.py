"""Peak memory of training and evaluating over a data set of several gigabytes.

    python tests/benchmarks/memory.py --gigabytes 3

Counts anonymous resident memory (Linux): what the process needs, not the file's pages that the
system keeps in memory while there is room. The network is thin, so that its size does not hide
that of the data.
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

from pipeline.files import write_json  # noqa: E402
from pipeline.hdf5_writer import HDF5Writer  # noqa: E402

IMAGE_BYTES, CHUNK, CLASSES = 64 * 64 * 3, 5000, 20


def write_split(folder: Path, split: str, images: int) -> None:
    """Write noise in the layout of build_dataset.py."""
    stream = np.random.default_rng(0)
    pixels = stream.integers(256, size=(CHUNK, 64, 64, 3), dtype=np.uint8)
    ids = [f"n{label:08d}" for label in range(CLASSES)]
    writer = HDF5Writer(
        folder / f"{split}.hdf5", count=images, image_size=64, class_ids=ids, class_names=ids,
        split=split, seed=0,
    )  # fmt: skip
    with writer:
        for _ in range(images // CHUNK):
            writer.append(pixels, stream.integers(CLASSES, size=CHUNK), b"")


def peak_anonymous_bytes(command: list[str]) -> int:
    """Run ``command`` and return the most anonymous memory it ever had resident."""
    peak = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines)])
            time.sleep(0.05)
    assert process.wait() == 0
    return peak


def main() -> None:
    """Measure for the size that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gigabytes in (0.1, args.gigabytes):
            images = max(1, round(gigabytes * 1e9 / IMAGE_BYTES / CHUNK)) * CHUNK
            hdf5, output = folder / f"hdf5-{images}", folder / f"run-{images}"
            hdf5.mkdir()
            write_split(hdf5, "train", images)
            write_split(hdf5, "val", CHUNK)
            write_json(hdf5 / "tiny_imagenet_mean.json", dict.fromkeys("RGB", 127.0))
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
