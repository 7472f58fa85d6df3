"""Exactness of the whole networks, where the tests train thin ones: stopped, resumed, compared.

    python tests/whole_networks.py          # 21 minutes on two busy cores

Each recipe trains for two epochs on the digits sample; a second run ends after the first epoch and
resumes from its checkpoint. The second epoch's checkpoints must be equal, byte for byte.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES, BACKENDS = ("published", "quick"), ("tensorflow", "jax")


def run(script: str, *arguments: object, **environment: str) -> None:
    """Run a script, and end with its output where it fails."""
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")


def main() -> None:
    """Print a line for each recipe and backend; end with status 1 where one differs."""
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "digits")
        run("build_dataset.py", "--sample", "-d", data)
        for recipe in RECIPES:
            for backend in BACKENDS:
                began = time.perf_counter()
                straight, resumed = (Path(folder, f"{recipe}-{backend}-{n}") for n in range(2))
                common = ("--hdf5", data / "hdf5", "-n")
                environment = {"KERAS_BACKEND": backend}
                run("model_train.py", "-r", recipe, *common, 2, "-o", straight, **environment)
                run("model_train.py", "-r", recipe, *common, 1, "-o", resumed, **environment)
                run("model_train.py", "-m", resumed, *common, 2, "-o", resumed, **environment)
                ours, theirs = (next(f.glob("epoch-002-*")) for f in (resumed, straight))
                equal = ours.name == theirs.name and ours.read_bytes() == theirs.read_bytes()
                differing += not equal
                outcome = "equal" if equal else "DIFFERENT"
                minutes = (time.perf_counter() - began) / 60
                print(f"{recipe}, {backend}: {outcome}, {minutes:.1f} minutes", flush=True)
    raise SystemExit(differing > 0)


if __name__ == "__main__":
    main()
