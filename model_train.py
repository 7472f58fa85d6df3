#!/usr/bin/env python3
"""Train GoogLeNet, with a checkpoint and new curves after each epoch; resume with -m."""

import argparse
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, number, run_script
from pipeline.printing import say
from pipeline.recipe import Count, LearningRate, Seed, choose_recipe

if TYPE_CHECKING:
    import keras

    from pipeline.io.hdf5_dataset import HDF5Dataset
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.distributed import DataParallelism, ProcessGroup
    from pipeline.run.state import RunState


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a setting left out is None and comes from checkpoint or recipe."""
    parser = new_parser(
        __doc__,
        "python model_train.py -r quick -o outs/quick\n"
        "  python model_train.py -m outs/quick/epoch-004-val_loss-2.345.keras -e 4 -o outs/quick",
    )

    add = parser.add_argument
    count = number(Count)
    add("-o", "--output", type=Path, metavar="DIR", required=True, help="where to write")
    add("-m", "--model", type=Path, metavar="PATH",
        help="a checkpoint to resume from, or a folder, whose latest is taken; its run's settings "
        "take the place of the defaults below (default: a fresh run)")  # fmt: skip
    add("-e", "--epoch", type=count, metavar="N",
        help="check that -m is at epoch N (default: no check)")  # fmt: skip
    add("-l", "--learning-rate", type=number(LearningRate), metavar="X",
        help="a constant rate until the run ends (default: the recipe's schedule)")  # fmt: skip
    add("-n", "--epochs", type=count, metavar="N",
        help="the last epoch; does not stretch the schedule (default: the recipe's)")  # fmt: skip
    add("-b", "--batch-size", type=count, metavar="N",
        help="images per step (default: the recipe's)")  # fmt: skip
    add("-r", "--recipe", choices=config.RECIPES, metavar="NAME",
        help=f"how to train: {', '.join(config.RECIPES)}; the values are in "
        f"config/setup_config.py (default: {config.DEFAULT_RECIPE})")  # fmt: skip
    add("--hdf5", type=Path, metavar="DIR",
        help="folder of the data (default: build_dataset.py's; with -m, the run's)")  # fmt: skip
    add("--keep", type=count, metavar="N",
        help="keep only the newest N checkpoints and the best one (default: all)")  # fmt: skip
    add("--tensorboard", action="store_true", help="write TensorBoard's logs too")
    add("--seed", type=number(Seed), metavar="N",
        help=f"fixes every random choice (default: {config.SEED})")  # fmt: skip
    many = parser.add_argument_group(
        "several processes",
        "with KERAS_BACKEND=jax; the same command for each, except --process-id;\n"
        "leave these out under srun",
    )
    many.add_argument("--processes", type=count, metavar="N", help="their number")
    many.add_argument("--process-id", type=int, metavar="K",
                      help="which one this is, from 0; 0 evaluates and writes")  # fmt: skip
    many.add_argument("--coordinator", metavar="HOST:PORT",
                      help="where process 0 runs, and a port that is free there")  # fmt: skip
    args = parser.parse_args(argv)
    if args.epoch and not args.model:
        parser.error("-e needs -m, the checkpoint to resume from; -n names the last epoch")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    As a rule one process trains on one device; of several, only the primary writes.
    """
    args = parse_arguments(argv)
    # Imported where they are used, so that --help and usage errors are instant.
    from pipeline.io.files import folder_lock
    from pipeline.io.hdf5_dataset import open_training_splits
    from pipeline.run import start
    from pipeline.run.checkpoint import read_state_to_resume
    from pipeline.run.distributed import find_process_group
    from pipeline.run.messages import results, resume_hint
    from pipeline.run.output_folder import find_hdf5

    name = args.recipe or config.DEFAULT_RECIPE
    recipe = None if args.model else choose_recipe(config.RECIPES, name)
    group = find_process_group(args.processes, args.process_id, args.coordinator, os.environ)
    train_set, val_set = open_training_splits(find_hdf5(args.hdf5, args.model, config.DATASET))
    with folder_lock(args.output) if group.is_primary else nullcontext():
        checkpoint = start.find_checkpoint(args.model, args.output)
        if checkpoint:
            state = start.resumed_run(
                read_state_to_resume(checkpoint), config.RECIPES, train_set, val_set,
                expected={"epoch": args.epoch, "recipe_name": args.recipe,
                          "batch_size": args.batch_size, "seed": args.seed},
                learning_rate=args.learning_rate, epochs=args.epochs,
            )  # fmt: skip
        else:
            state = start.fresh_run(
                name, recipe, config.SEED if args.seed is None else args.seed, train_set, val_set,
                batch_size=args.batch_size, learning_rate=args.learning_rate, epochs=args.epochs,
            )  # fmt: skip
        if group.is_primary and state.epoch >= state.epochs:
            restore_curves(args.output, state, len(train_set))
        start.check_trainable(state, len(train_set))
        on_signal = resume_hint(args) if group.is_primary else nullcontext()
        with on_signal, group.connected(repr(state)):  # all must have equal settings
            train(args, group, state, checkpoint, train_set, val_set)
        if group.is_primary:
            say(*results(args.output, args.tensorboard))


def restore_curves(folder: Path, state: "RunState", images: int) -> None:
    """Write a finished run's curves: it may have been killed before it wrote the last ones."""
    from pipeline.run.output_folder import latest_state

    if latest_state(folder) == state:
        import_keras()
        from pipeline.callbacks.training_monitor import write_run_curves

        write_run_curves(folder, state, math.ceil(images / state.batch_size))


def train(
    args: argparse.Namespace,
    group: "ProcessGroup",
    state: "RunState",
    checkpoint: Path | None,
    train_set: "HDF5Dataset",
    val_set: "HDF5Dataset",
) -> None:
    """Assemble the parts and train; only the primary process evaluates, writes and prints."""
    keras = import_keras()
    from pipeline.callbacks import EpochStart, MomentumCorrection
    from pipeline.callbacks.tensorboard import check_tensorboard
    from pipeline.callbacks.training_monitor import write_run_curves
    from pipeline.nn.optimizers import learning_rate_schedule
    from pipeline.run.checkpoint import restore
    from pipeline.run.conditions import note_on_conditions
    from pipeline.run.distributed import DataParallelism
    from pipeline.run.messages import header
    from pipeline.run.output_folder import begin_branch
    from pipeline.run.training import build_model, fit_phases, training_batches

    backend = keras.backend.backend()
    if args.tensorboard:
        check_tensorboard(backend)
    state = replace(state, recipe=state.recipe.for_this_machine())
    parallel = DataParallelism(group, state.batch_size)
    if group.is_primary:
        say(*header(state, backend, parallel, (len(train_set), len(val_set))))
        if checkpoint:
            say(*note_on_conditions(checkpoint, state, parallel.devices))
    batches = training_batches(train_set, state, parallel.shard)
    with ExitStack() as stack:
        with parallel.scope():
            model = build_model(state, len(batches))
            if checkpoint:
                restore(model, checkpoint)
        to_evaluate = group.is_primary and parallel.is_distributed
        replica = build_model(state, len(batches)) if to_evaluate else None
        schedule = learning_rate_schedule(state.recipe, len(batches), state.learning_rate)
        callbacks = [
            EpochStart(batches, state.seed),
            MomentumCorrection(schedule, state.last_rate),
        ]
        if group.is_primary:
            state = replace(state, backend=backend)
            if checkpoint:
                state, resumed, superseded = begin_branch(checkpoint, state, args.output)
                kept = [f"kept an earlier checkpoint as {path}" for path in superseded]
                say(*kept, f"resuming after epoch {state.epoch} from {resumed}")
                write_run_curves(args.output, state, len(batches))  # without superseded epochs
            callbacks += reporting_callbacks(
                args, state, parallel, replica, batches, val_set, stack
            )
        with parallel.scope():
            fit_phases(model, batches, state, callbacks)


def reporting_callbacks(
    args: argparse.Namespace,
    state: "RunState",
    parallel: "DataParallelism",
    replica: "keras.Model | None",
    batches: "HDF5Generator",
    val_set: "HDF5Dataset",
    stack: ExitStack,
) -> "list[keras.callbacks.Callback]":
    """Begin the log; return the primary's callbacks, in the order in which they must run.

    ``stack`` removes the progress bar, whatever happens.
    """
    from pipeline import callbacks
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.messages import rate_advice

    hint = ""
    if parallel.on_cpu and state.recipe_name not in config.CPU_RECIPES:
        hint = f"that is long: -r {config.SUGGESTED_RECIPE} is the recipe made for two CPU cores"
    bar = callbacks.ProgressBar(state, len(batches.dataset), hint)
    stack.callback(bar.close)
    log = callbacks.RunLog(args.output, batches, bar)
    log.write_start(state, parallel.devices)
    run = callbacks.RunHistory(state, len(batches))
    size = state.recipe.size_to_evaluate
    after_epoch: list[keras.callbacks.Callback] = []
    if state.recipe.network.precise_norm:  # before Validation, which uses what it measures
        unaugmented = HDF5Generator(
            batches.dataset, state.batch_size, seed=state.seed, shuffle=True, image_size=size
        )
        after_epoch.append(callbacks.PreciseBatchNorm(unaugmented))
    after_epoch += [
        callbacks.Validation(HDF5Generator(val_set, state.batch_size, image_size=size)),
        run,
        callbacks.EpochCheckpoint(args.output, args.keep, run),
        callbacks.TrainingMonitor(args.output, run),
    ]
    if args.tensorboard:
        after_epoch.append(callbacks.TensorBoardCurves(args.output, state))
    after_epoch += [
        log,
        callbacks.EpochSummary(run, bar, lambda state: rate_advice(args, state, config.PATIENCE)),
    ]
    return [bar, callbacks.EvaluationModel(after_epoch, replica)]


if __name__ == "__main__":
    run_script(main)
