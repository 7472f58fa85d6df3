#!/usr/bin/env python3
"""Train GoogLeNet, with a checkpoint and new curves after each epoch; go on with -m and -e."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.command_line import (
    Terminated,
    import_keras,
    new_parser,
    positive_integer,
    positive_rate,
    run_script,
    seed_number,
)
from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.hdf5_dataset import HDF5Dataset
    from pipeline.run_state import RunState


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a setting left out is None and comes from checkpoint or recipe."""
    parser = new_parser(
        __doc__,
        "python model_train.py -r quick -o outs/quick\n"
        "  python model_train.py -m outs/quick/epoch-004-val_loss-2.345.keras -e 4 -o outs/quick",
    )

    def add(*flags: str, **options: object) -> None:
        parser.add_argument(*flags, **options)

    add("-o", "--output", type=Path, metavar="DIR", required=True, help="where to write")
    add("-m", "--model", type=Path, metavar="FILE",
        help="a checkpoint to go on from, or a folder, whose latest is taken")  # fmt: skip
    add("-e", "--epoch", type=positive_integer, metavar="N",
        help="the epoch that -m was written after, as a check")  # fmt: skip
    add("-l", "--learning-rate", type=positive_rate, metavar="X",
        help="a constant rate from here on (default: the recipe's schedule)")  # fmt: skip
    add("-n", "--epochs", type=positive_integer, metavar="N",
        help="the epoch to end at; changes no schedule (default: the recipe's)")  # fmt: skip
    add("-b", "--batch-size", type=positive_integer, metavar="N",
        help="images a step (default: the recipe's)")  # fmt: skip
    add("-r", "--recipe", choices=config.RECIPES,
        help=f"how to train: {', '.join(config.RECIPES)}; the values are in "
        f"config/setup_config.py (default: {config.DEFAULT_RECIPE})", metavar="NAME")  # fmt: skip
    add("--hdf5", type=Path, metavar="DIR",
        help="what build_dataset.py wrote (default: where it writes by default)")  # fmt: skip
    add("--keep", type=positive_integer, metavar="N",
        help="leave only the newest N checkpoints and the best one (default: all)")  # fmt: skip
    add("--seed", type=seed_number, metavar="N",
        help=f"fixes every random choice (default: {config.SEED})")  # fmt: skip
    args = parser.parse_args(argv)
    if args.epoch and not args.model:
        parser.error("-e goes with -m, the checkpoint to go on from")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_arguments(argv)
    from pipeline.files import only_writer, remove_unfinished
    from pipeline.hdf5_dataset import open_split
    from pipeline.tiny_imagenet import default_hdf5_folder, find_data_set

    hdf5 = args.hdf5 or default_hdf5_folder(find_data_set(config.DATASET))
    train_set, val_set = open_split(hdf5, "train"), open_split(hdf5, "val")
    with only_writer(args.output):
        remove_unfinished(args.output)
        start = checkpoint_to_start_from(args)
        if start:
            state = stored_run(args, start, train_set, val_set)
        else:
            state = fresh_run(args, hdf5, train_set, val_set)
        check_run(state, len(train_set))
        try:
            train_run(args, state, start, train_set, val_set)
        except (KeyboardInterrupt, Terminated):
            print(f"to go on: {resume_command(args)}", flush=True)
            raise


def checkpoint_to_start_from(args: argparse.Namespace) -> Path | None:
    """Return the checkpoint that -m names; None for a fresh run, into a folder that holds none."""
    from pipeline.checkpoint import PATTERN, latest_checkpoint
    from pipeline.training_monitor import NUMBERS

    earlier = [*args.output.glob(PATTERN), *args.output.glob(NUMBERS)]
    if not args.model:
        if earlier:
            raise UserError(
                f"{args.output} holds a run already; go on with it by -m {args.output}, "
                "or name another folder with -o"
            )
        return None
    start = latest_checkpoint(args.model) if args.model.is_dir() else args.model
    if earlier and start.resolve().parent != args.output.resolve():
        raise UserError(
            f"{args.output} holds another run than {start}; name another folder with -o"
        )
    return start


def fresh_run(
    args: argparse.Namespace, hdf5: Path, train_set: "HDF5Dataset", val_set: "HDF5Dataset"
) -> "RunState":
    """Return the state before the first epoch."""
    from pipeline.dataset_build import read_means
    from pipeline.run_state import new_run

    name = args.recipe or config.DEFAULT_RECIPE
    return new_run(
        name,
        config.RECIPES[name],
        train_set,
        val_set,
        read_means(hdf5),
        seed=config.SEED if args.seed is None else args.seed,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        epochs=args.epochs,
    )


def stored_run(
    args: argparse.Namespace, start: Path, train_set: "HDF5Dataset", val_set: "HDF5Dataset"
) -> "RunState":
    """Return the state that a checkpoint holds, where it agrees with the flags and the data."""
    from pipeline.checkpoint import read_state
    from pipeline.run_state import check_data, check_recipe, check_settings

    state = read_state(start)
    check_data(state, train_set, val_set)
    asked = {
        "epoch": args.epoch,
        "recipe_name": args.recipe,
        "batch_size": args.batch_size,
        "seed": args.seed,
    }
    check_settings(state, asked)
    check_recipe(state, config.RECIPES)
    return replace(
        state,
        learning_rate=args.learning_rate or state.learning_rate,
        epochs=args.epochs or state.epochs,
    )


def check_run(state: "RunState", images: int) -> None:
    """Raise UserError where nothing useful could be trained."""
    if state.batch_size > images:
        raise UserError(f"a batch of {state.batch_size} is more than the {images} train images")
    if state.epoch >= state.epochs:
        raise UserError(
            f"epoch {state.epoch} is done and the run ends at epoch {state.epochs}; "
            "name a later one with -n to go on"
        )
    falls_to_zero = not state.recipe.rate_drops and state.learning_rate is None
    if state.epochs > state.recipe.epochs and falls_to_zero:
        raise UserError(
            f"the rate of recipe {state.recipe_name!r} is zero after epoch "
            f"{state.recipe.epochs}; to train to epoch {state.epochs} give a rate with -l too"
        )


def train_run(
    args: argparse.Namespace,
    state: "RunState",
    start: Path | None,
    train_set: "HDF5Dataset",
    val_set: "HDF5Dataset",
) -> None:
    """Assemble the parts, say what runs, train, and say what came of it."""
    keras = import_keras()
    from pipeline.checkpoint import (
        EpochCheckpoint,
        adopt,
        best_epoch,
        latest_checkpoint,
        move_later_checkpoints,
    )
    from pipeline.hdf5_generator import HDF5Generator
    from pipeline.progress_report import ProgressReport
    from pipeline.run_log import RunLog
    from pipeline.training import build_model, curve_title, go_on_from, train, training_batches
    from pipeline.training_monitor import TrainingMonitor

    with ExitStack() as open_parts:
        batches = open_parts.enter_context(training_batches(train_set, state))
        val = open_parts.enter_context(HDF5Generator(val_set, state.batch_size))
        model = build_model(state, len(batches))
        checkpoint, monitor = EpochCheckpoint(args.output, args.keep), TrainingMonitor(args.output)
        log = RunLog(args.output)
        devices = keras.distribution.list_devices()
        print(
            f"{keras.backend.backend()} on {', '.join(devices)}: {len(train_set):,} train and "
            f"{len(val_set):,} val images of {len(state.class_ids)} classes; GoogLeNet with "
            f"{model.count_params():,} parameters; recipe {state.recipe_name}, batches of "
            f"{state.batch_size}, seed {state.seed}"
        )
        if start:
            go_on_from(model, start)
            for path in move_later_checkpoints(args.output, state.epoch):
                print(f"moved a later checkpoint to {path}")
            start = adopt(start, state, args.output)
            monitor.update(state.history, curve_title(state))
            print(f"going on after epoch {state.epoch} from {start}")
        log.write("start", epoch=state.epoch, epochs=state.epochs, backend=keras.backend.backend(),
                  devices=devices, learning_rate=state.learning_rate)  # fmt: skip
        on_cpu = all(device.startswith("cpu") for device in devices)
        report = ProgressReport(len(train_set), hint_for_cpu(state) if on_cpu else "")
        state = train(model, state, batches, val, checkpoint, monitor, log, report)

    best = best_epoch(state)
    print(f"best epoch by val: {best}, rank-1 {state.history['val_accuracy'][best - 1]:.2%}")
    print(
        f"wrote checkpoints, metric_values.json, training_plot.jpg and run.jsonl to {args.output}"
    )
    # An early best epoch may lie in the folder that the run was begun in.
    files = [*args.output.glob(f"epoch-{best:03d}-*"), latest_checkpoint(args.output)]
    print(f"next: python model_eval.py -m {quote(str(files[0]))}{hdf5_flag(args)}")


def hint_for_cpu(state: "RunState") -> str:
    """Return what to say where a run would take very long on a CPU."""
    if state.recipe_name in ("quick", "demo"):
        return ""
    return "that is long: -r quick is the recipe made for two CPU cores"


def resume_command(args: argparse.Namespace) -> str:
    """Return the command that goes on with this run after its last checkpoint."""
    from pipeline.checkpoint import PATTERN

    output = quote(str(args.output))
    keep = f" --keep {args.keep}" if args.keep else ""
    if any(args.output.glob(PATTERN)):
        return f"python model_train.py -m {output} -o {output}{hdf5_flag(args)}{keep}"
    return "run the same command again; no epoch was finished"


def hdf5_flag(args: argparse.Namespace) -> str:
    """Return the --hdf5 flag as it was given."""
    return f" --hdf5 {quote(str(args.hdf5))}" if args.hdf5 else ""


if __name__ == "__main__":
    run_script(main)
