"""Kill a training again and again at random moments, and compare what is left in the end.

    python tests/kill_many.py --kills 50

A thin network trains on a small made data set; each time it is killed (SIGKILL) it resumes with
``-m DIR``. In the end its checkpoints must be, byte for byte, those of a run that was never
killed; on the way every file must be whole, and no finished epoch may be computed again.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from zipfile import ZipFile

import cv2
from conftest import ROOT, train_command, write_tiny_imagenet

RECIPE = "thin-long"
LONGEST_WAIT_S = 1.0
"""After the first epoch of a start, for every other kill."""
EPOCHS_A_KILL = 9
"""More than get done between two kills; 50 kills stay within the recipe's 500 epochs."""
LATEST_KILL_S = 12.0
"""After the start, for the others: imports, building, restoring and the first epochs."""


def train_with_kills(hdf5: Path, folder: Path, kills: int, epochs: int, seed: int) -> None:
    """Train to the last epoch, through so many kills, checking the files after each."""
    moments = random.Random(seed)
    for left in range(kills, -1, -1):
        start = ("-m", folder) if list(folder.glob("*.keras")) else ("-r", RECIPE)
        command = train_command(*start, "-n", epochs, "--hdf5", hdf5, "-o", folder)
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            if left % 2:
                _kill_soon_after_an_epoch(process, moments)
            elif left:
                time.sleep(moments.uniform(0, LATEST_KILL_S))
                process.kill()
            process.communicate()
        check_files(folder)
        finished = any(folder.glob(f"epoch-{epochs:03}-*.keras"))
        assert not (left and finished), "trained to the end before the last kill; add epochs"
        assert process.returncode == (-9 if left else 0), f"status {process.returncode}"


def _kill_soon_after_an_epoch(process: subprocess.Popen, moments: random.Random) -> None:
    """Wait for the first epoch to end, whose row begins the table, then kill."""
    for line in process.stdout:
        if line.endswith(" left\n"):
            break
    # Let nothing wait for this reader meanwhile.
    threading.Thread(target=process.stdout.read, daemon=True).start()
    time.sleep(moments.uniform(0, LONGEST_WAIT_S))
    process.kill()
    process.wait()


def check_files(folder: Path) -> None:
    """Check that every file but the temporary ones is whole, and that no epoch was done again."""
    for path in folder.glob("epoch-*.keras"):
        with ZipFile(path) as archive:
            assert archive.testzip() is None
    if (folder / "metric_values.json").exists():
        json.loads((folder / "metric_values.json").read_text())
    if (folder / "training_plot.jpg").exists():
        assert (folder / "training_plot.jpg").read_bytes().endswith(b"\xff\xd9")
        assert cv2.imread(str(folder / "training_plot.jpg")) is not None
    finished = 0
    log = (folder / "run.jsonl").read_text() if (folder / "run.jsonl").exists() else ""
    for line in log.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # torn by the kill; the next start drops it
        event = json.loads(line)
        assert event["epoch"] >= finished, "a finished epoch was computed again"
        finished = event["epoch"]


def check_equal(killed: Path, straight: Path) -> None:
    """Check that two runs left the same checkpoints and numbers."""
    names = sorted(path.name for path in straight.glob("*.keras"))
    assert sorted(path.name for path in killed.glob("*.keras")) == names
    for name in [*names, "metric_values.json"]:
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name


def main() -> None:
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_tiny_imagenet(root / "data")
        subprocess.run([sys.executable, "build_dataset.py", "-d", data], cwd=ROOT, check=True)
        hdf5, epochs = data / "hdf5", EPOCHS_A_KILL * args.kills + 6
        command = train_command("-r", RECIPE, "-n", epochs, "--hdf5", hdf5, "-o", root / "straight")
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        train_with_kills(hdf5, root / "killed", args.kills, epochs, args.seed)
        check_equal(root / "killed", root / "straight")
        print(f"{args.kills} kills over {epochs} epochs: all files whole, all checkpoints equal")


if __name__ == "__main__":
    main()
