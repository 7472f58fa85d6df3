"""A recipe beside variants of it, each trained in a short run: what a change of values gives.

    python tests/benchmarks/variants.py --hdf5 HDF5_OF_100_CLASSES -r quick \\
        --all "epochs=3, stem='paper', image_sizes=((1, 48),)" \\
        "optimizer='sgd', learning_rate=0.1, batch_size=128" "optimizer='muon'"

A variant names the values that it has otherwise, as Recipe's fields; "" is the recipe as it is.
What wins in a short run need not win in a long one.
"""

import argparse
import ast
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import model_train
from config import setup_config as config

Values = Mapping[str, Any]


def main() -> None:
    """Train each variant, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdf5", type=Path, required=True)
    parser.add_argument("-r", "--recipe", choices=config.RECIPES, required=True)
    parser.add_argument("--all", type=values, default={}, help="what all variants have otherwise")
    parser.add_argument("--together", type=int, default=1, help="how many train at once")
    parser.add_argument("variants", nargs="+", type=str)
    args = parser.parse_args()
    changes = [{**args.all, **values(variant)} for variant in args.variants]
    print("| variant | val rank-1 by epoch, % | training rank-1 | val loss | minutes |")
    print("| --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(
        args.together, mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        runs = [pool.submit(train, args.recipe, change, args.hdf5) for change in changes]
        for variant, run in zip(args.variants, runs, strict=True):
            history, seconds = run.result()
            ranks = ", ".join(f"{rank:.1%}".rstrip("%") for rank in history["val_accuracy"])
            print(
                f"| {variant or 'as it is'} | {ranks} | {history['accuracy'][-1]:.1%} | "
                f"{history['val_loss'][-1]:.3f} | {seconds / 60:.0f} |",
                flush=True,
            )


def values(text: str) -> Values:
    """Read "name=value, name=value"."""
    call = ast.parse(f"dict({text})", mode="eval").body
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords}


def train(recipe: str, changes: Values, hdf5: Path) -> tuple[dict[str, list[float]], float]:
    """Train as model_train.py does; return the curves and the seconds."""
    config.RECIPES[recipe] = replace(config.RECIPES[recipe], **changes)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model_train.main(["-r", recipe, "--hdf5", str(hdf5), "-o", folder, "--keep", "1"])
        history = json.loads((Path(folder) / "metric_values.json").read_text())
    return history, time.perf_counter() - start


if __name__ == "__main__":
    main()
