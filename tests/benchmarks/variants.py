"""A recipe beside variants of it, each trained in a short run: what a change of values gives.

    python tests/benchmarks/variants.py --hdf5 HDF5_OF_100_CLASSES -r quick \\
        --all "'epochs': 3, 'network.stem': 'paper', 'image_sizes': ((1, 48),)" \\
        "'optimizer.name': 'sgd', 'optimizer.learning_rate': 0.1" "'augmentation.zoom': 0.15"

A variant names the values that it has otherwise than the recipe; "" has only those of --all. What
wins in a short run need not win in a long one.
"""

import argparse
import ast
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import model_train
from config import setup_config as config
from pipeline.recipe import Recipe, choose_recipe


def main() -> None:
    """Train each variant, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hdf5", type=Path, required=True)
    parser.add_argument("-r", "--recipe", choices=config.RECIPES, required=True)
    parser.add_argument("--all", default="", help="what all variants have otherwise")
    parser.add_argument("--together", type=int, default=1,
                        help="how many train at once, each the slower for it")  # fmt: skip
    parser.add_argument("variants", nargs="+")
    args = parser.parse_args()
    common = choose_recipe(config.RECIPES, args.recipe).replaced(values(args.all))
    recipes = [common.replaced(values(variant)) for variant in args.variants]
    print("| variant | val rank-1 by epoch, % | training rank-1, % | val loss | minutes |")
    print("| --- | --- | --- | --- | --- |")
    spawn = get_context("spawn")
    with ProcessPoolExecutor(args.together, spawn, max_tasks_per_child=1) as pool:
        runs = [pool.submit(train, args.recipe, recipe, args.hdf5) for recipe in recipes]
        for variant, run in zip(args.variants, runs, strict=True):
            history, seconds = run.result()
            ranks = ", ".join(f"{100 * rank:.1f}" for rank in history["val_accuracy"])
            print(
                f"| {variant or 'no change'} | {ranks} | {100 * history['accuracy'][-1]:.1f} | "
                f"{history['val_loss'][-1]:.3f} | {seconds / 60:.1f} |",
                flush=True,
            )


def values(text: str) -> dict[str, Any]:
    """Read "'name': value, 'name': value"."""
    return ast.literal_eval(f"{{{text}}}")


def train(name: str, recipe: Recipe, hdf5: Path) -> tuple[dict[str, list[float]], float]:
    """Train as model_train.py does; return the curves and the seconds."""
    config.RECIPES[name] = recipe
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        model_train.main(["-r", name, "--hdf5", str(hdf5), "-o", folder, "--keep", "1"])
        history = json.loads((Path(folder) / "metric_values.json").read_text())
    return history, time.perf_counter() - start


if __name__ == "__main__":
    main()
