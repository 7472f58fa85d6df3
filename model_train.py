#!/usr/bin/env python3
"""Train GoogLeNet, with a checkpoint and new curves after each epoch; resume with -m and -e."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import has_bfloat16, import_keras
from pipeline.command_line import Terminated, new_parser, number, run_script
from pipeline.errors import UserError
from pipeline.recipe import choose_recipe

if TYPE_CHECKING:
    import keras

    from pipeline.callbacks.training_monitor import TrainingMonitor
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

    def add(*flags: str, **options: object) -> None:
        parser.add_argument(*flags, **options)

    count = number(int, 1)
    add("-o", "--output", type=Path, metavar="DIR", required=True, help="where to write")
    add("-m", "--model", type=Path, metavar="FILE",
        help="a checkpoint to resume from, or a folder, whose latest is taken")  # fmt: skip
    add("-e", "--epoch", type=count, metavar="N",
        help="the epoch that -m was written after, as a check")  # fmt: skip
    add("-l", "--learning-rate", type=number(float, 1e-12), metavar="X",
        help="a constant rate from here on (default: the recipe's schedule)")  # fmt: skip
    add("-n", "--epochs", type=count, metavar="N",
        help="the epoch to end at; changes no schedule (default: the recipe's)")  # fmt: skip
    add("-b", "--batch-size", type=count, metavar="N",
        help="images a step (default: the recipe's)")  # fmt: skip
    add("-r", "--recipe", choices=config.RECIPES,
        help=f"how to train: {', '.join(config.RECIPES)}; the values are in "
        f"config/setup_config.py (default: {config.DEFAULT_RECIPE})", metavar="NAME")  # fmt: skip
    add("--hdf5", type=Path, metavar="DIR",
        help="what build_dataset.py wrote (default: where it writes by default)")  # fmt: skip
    add("--keep", type=count, metavar="N",
        help="leave only the newest N checkpoints and the best one (default: all)")  # fmt: skip
    add("--tensorboard", action="store_true", help="keep the curves for TensorBoard too")
    add("--seed", type=number(int, 0, 2**32 - 1), metavar="N",
        help=f"fixes every random choice (default: {config.SEED})")  # fmt: skip
    many = parser.add_argument_group(
        "several processes",
        "each started with the same command but its own --process-id; under Slurm's srun none of "
        "these is needed; KERAS_BACKEND=jax only",
    )
    many.add_argument("--processes", type=count, metavar="N", help="how many there are")
    many.add_argument("--process-id", type=number(int, 0), metavar="K",
                      help="which one this is, from 0; 0 evaluates and writes")  # fmt: skip
    many.add_argument("--coordinator", metavar="HOST:PORT",
                      help="where process 0 runs, and a port that is free there")  # fmt: skip
    args = parser.parse_args(argv)
    if args.epoch and not args.model:
        parser.error("-e goes with -m, the checkpoint to resume from")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_arguments(argv)
    from pipeline.dataset.tiny_imagenet import default_hdf5_folder, find_data_set
    from pipeline.io.files import folder_lock, remove_unfinished
    from pipeline.io.hdf5_dataset import open_training_splits
    from pipeline.run.distributed import find_process_group
    from pipeline.run.output_folder import latest_state
    from pipeline.run.state import check_trainable

    group = find_process_group(args.processes, args.process_id, args.coordinator, os.environ)
    hdf5 = args.hdf5 or default_hdf5_folder(find_data_set(config.DATASET))
    train_set, val_set = open_training_splits(hdf5)
    if args.model and not args.model.exists():
        raise UserError(f"{args.model} does not exist; name a checkpoint or its folder with -m")
    with folder_lock(args.output) if group.is_primary else nullcontext():
        if group.is_primary:
            remove_unfinished(args.output)
        start = checkpoint_to_start_from(args)
        if start:
            state = stored_run(args, start, train_set, val_set)
            if group.is_primary and state.epoch >= state.epochs:
                renew_curves(args.output, start)
        else:
            state = fresh_run(args, hdf5, train_set, val_set)
        check_trainable(state, len(train_set))
        before = latest_state(args.output)
        try:
            with group.ends_together():
                train_run(args, group, state, start, train_set, val_set)
        except (KeyboardInterrupt, Terminated):
            if group.is_primary:
                print(f"to resume: {resume_command(args, before)}", flush=True)
            raise


def checkpoint_to_start_from(args: argparse.Namespace) -> Path | None:
    """Return the checkpoint that -m names; None for a fresh run, into a folder that holds none."""
    from pipeline.run.output_folder import SUPERSEDED, latest_checkpoint, list_checkpoints
    from pipeline.run.state import HISTORY_FILE

    holds_run = bool(list_checkpoints(args.output))
    if not args.model:
        if holds_run:
            raise UserError(
                f"{args.output} holds a run already; resume it by -m {args.output}, "
                "or name another folder with -o"
            )
        if (args.output / HISTORY_FILE).exists():
            raise UserError(
                f"{args.output} holds another run's {HISTORY_FILE}; name another folder"
            )
        return None
    start = latest_checkpoint(args.model) if args.model.is_dir() else args.model
    own = (args.output.resolve(), args.output.resolve() / SUPERSEDED)
    if holds_run and start.resolve().parent not in own:
        raise UserError(f"{args.output} holds another run than {start}; name another folder")
    return start


def renew_curves(output: Path, start: Path) -> None:
    """Renew the curves where a kill came between the last checkpoint and them."""
    from pipeline.run.checkpoint import read_state
    from pipeline.run.output_folder import latest_state

    state = read_state(start)
    if latest_state(output) == state:
        import_keras()
        training_monitor(output, state).write()


def fresh_run(
    args: argparse.Namespace, hdf5: Path, train_set: "HDF5Dataset", val_set: "HDF5Dataset"
) -> "RunState":
    """Return the state before the first epoch."""
    from pipeline.dataset.builder import read_means
    from pipeline.run.state import new_run

    name = args.recipe or config.DEFAULT_RECIPE
    return new_run(
        name,
        choose_recipe(config.RECIPES, name),
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
    from pipeline.run.checkpoint import read_state
    from pipeline.run.state import resumed_run

    asked = {
        "epoch": args.epoch,
        "recipe_name": args.recipe,
        "batch_size": args.batch_size,
        "seed": args.seed,
    }
    return resumed_run(
        read_state(start),
        train_set,
        val_set,
        config.RECIPES,
        asked=asked,
        learning_rate=args.learning_rate,
        epochs=args.epochs,
    )


def distributed_model(
    parallel: "DataParallelism", state: "RunState", start: Path | None, steps: int
) -> "keras.Model":
    """Build the network over all devices, restore it, and wait until all processes agree."""
    from pipeline.run.checkpoint import restore
    from pipeline.run.training import build_model

    with parallel.scope():
        model = build_model(state, steps)
        if start:
            restore(model, start)
        parallel.group.barrier(json.dumps(state.to_json(), sort_keys=True))
    return model


def train_run(
    args: argparse.Namespace,
    group: "ProcessGroup",
    state: "RunState",
    start: Path | None,
    train_set: "HDF5Dataset",
    val_set: "HDF5Dataset",
) -> None:
    """Assemble the parts and train; the primary process evaluates, writes and says so."""
    group.initialize()
    keras = import_keras()
    from pipeline.callbacks.epoch_start import EpochStart
    from pipeline.callbacks.tensorboard import check_tensorboard
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.distributed import DataParallelism
    from pipeline.run.training import build_model, fit_phases, training_batches

    backend = keras.backend.backend()
    if args.tensorboard:
        check_tensorboard(backend)
    state = replace(state, recipe=state.recipe.for_this_machine())
    parallel = DataParallelism(group, state.batch_size)
    with (
        training_batches(train_set, state, parallel.shard) as batches,
        HDF5Generator(val_set, state.batch_size) as val,
        ExitStack() as opened,
    ):
        model = distributed_model(parallel, state, start, len(batches))
        callbacks = [EpochStart(batches, state.seed, state.recipe.image_size)]
        if group.is_primary:
            if parallel.shard:
                parallel.keep_replica(build_model(state, len(batches)))
            print_header(state, backend, parallel.devices, model, batches, val)
            state = replace(state, backend=backend)
            if start:
                state = resume_from(start, state, args.output)
            callbacks += reporting_callbacks(args, state, parallel, batches, val, opened)
        with parallel.scope():
            fit_phases(model, batches, state, callbacks)
    if group.is_primary:
        print_results(args)


def reporting_callbacks(
    args: argparse.Namespace,
    state: "RunState",
    parallel: "DataParallelism",
    batches: "HDF5Generator",
    val: "HDF5Generator",
    opened: ExitStack,
) -> "list[keras.callbacks.Callback]":
    """Return what evaluates, writes and prints, in order; ``opened`` closes it."""
    from pipeline.callbacks.epoch_checkpoint import EpochCheckpoint
    from pipeline.callbacks.epoch_summary import EpochSummary
    from pipeline.callbacks.evaluation_model import EvaluationModel
    from pipeline.callbacks.progress_bar import ProgressBar
    from pipeline.callbacks.run_history import RunHistory
    from pipeline.callbacks.run_log import RunLog
    from pipeline.callbacks.tensorboard import TensorBoardCurves
    from pipeline.callbacks.validation import Validation
    from pipeline.nn.optimizers import learning_rate_schedule

    steps = len(batches)
    schedule = learning_rate_schedule(state.recipe, steps, state.learning_rate)
    history = RunHistory(state, schedule, steps)
    hint = hint_for_cpu(state) if on_cpu(parallel.devices) else ""
    bar = opened.enter_context(ProgressBar(state, len(batches.dataset), hint))
    log = RunLog(args.output, batches, bar)
    log.write("start", epoch=state.epoch, epochs=state.epochs, backend=state.backend,
              devices=parallel.devices, learning_rate=state.learning_rate)  # fmt: skip
    curves = (
        [opened.enter_context(TensorBoardCurves(args.output, state))] if args.tensorboard else []
    )
    after_epoch = [
        Validation(val, state.recipe.image_size),
        history,
        EpochCheckpoint(args.output, args.keep, history),
        training_monitor(args.output, state),
        *curves,
        log,
        EpochSummary(history, bar, lambda state: advice_on_rate(args, state)),
    ]
    return [bar, EvaluationModel(after_epoch, parallel)]


def training_monitor(output: Path, state: "RunState") -> "TrainingMonitor":
    """Return the monitor that carries a run's curves on."""
    from pipeline.callbacks.training_monitor import TrainingMonitor

    return TrainingMonitor(output, state.history, f"GoogLeNet, recipe {state.recipe_name}")


def print_header(
    state: "RunState",
    backend: str,
    devices: Sequence[str],
    model: "keras.Model",
    batches: "HDF5Generator",
    val: "HDF5Generator",
) -> None:
    """Say what runs where."""
    print(
        f"{backend} on {', '.join(devices)}: {len(batches.dataset):,} train and "
        f"{len(val.dataset):,} val images of {len(state.class_ids)} classes; "
        f"GoogLeNet with {model.count_params():,} parameters; recipe {state.recipe_name} "
        f"({state.recipe.network.dtype}), batches of {state.batch_size}, seed {state.seed}"
    )
    print_notes(state, backend, devices)


def on_cpu(devices: Sequence[str]) -> bool:
    """Tell whether no device is an accelerator."""
    return all(device.startswith("cpu") for device in devices)


def print_notes(state: "RunState", backend: str, devices: Sequence[str]) -> None:
    """Say what a user might not expect of this run on this machine."""
    if backend == "tensorflow" and len(devices) > 1:
        print("note: TensorFlow trains on the first of them; KERAS_BACKEND=jax on all")
    if state.epoch and state.backend != backend:
        print(f"note: begun on {state.backend}; on {backend} the numbers will differ")
    if on_cpu(devices) and state.recipe.network.dtype == "mixed_bfloat16" and not has_bfloat16():
        print("note: this CPU has no instructions for 16 bits that are used; it will be slow")


def resume_from(start: Path, state: "RunState", output: Path) -> "RunState":
    """Make ``output`` end with the checkpoint that is resumed from; return that one's state."""
    from pipeline.run.checkpoint import read_state
    from pipeline.run.output_folder import begin_branch

    start, *aside = begin_branch(start, state, output)
    state = read_state(start)
    training_monitor(output, state).write()
    for path in aside:
        print(f"kept an earlier checkpoint as {path}")
    print(f"resuming after epoch {state.epoch} from {start}", flush=True)
    return state


def print_results(args: argparse.Namespace) -> None:
    """Say which epoch was best, what was written, and what to run next."""
    from pipeline.run.checkpoint import read_state
    from pipeline.run.output_folder import latest_checkpoint

    latest = latest_checkpoint(args.output)
    state = read_state(latest)
    best = state.best_epoch
    # An early best epoch may lie in the folder that the run was begun in.
    file, *_ = [*args.output.glob(f"epoch-{best:03d}-*"), latest]
    rank1 = state.history["val_accuracy"][best - 1]
    print(f"best epoch by val: {best}, rank-1 {rank1:.2%}, in {file}")
    print(
        f"wrote checkpoints, metric_values.json, training_plot.jpg and run.jsonl to {args.output}"
    )
    if args.tensorboard:
        print(f"curves for TensorBoard: tensorboard --logdir {quote(str(args.output))}")
    print(f"next: python model_eval.py -m {quote(str(args.output))}{hdf5_flag(args)}")


def hint_for_cpu(state: "RunState") -> str:
    """Return what to say where a run would take very long on a CPU."""
    if state.recipe_name in (config.FIRST_RECIPE, "demo"):
        return ""
    return f"that is long: -r {config.FIRST_RECIPE} is the recipe made for two CPU cores"


def resume_command(args: argparse.Namespace, before: "RunState | None") -> str:
    """Return the command that resumes; ``before`` is what the folder held when this one began."""
    from pipeline.run.output_folder import latest_state

    last = latest_state(args.output)
    if last is None or last == before:
        return backend_setting() + join(["python", *sys.argv])
    return backend_setting() + command_to_resume(args, args.output)


def command_to_resume(args: argparse.Namespace, start: Path, *settings: str) -> str:
    """Return the command that resumes from ``start`` with ``settings`` and this one's flags."""
    where = f"-m {quote(str(start))} {' '.join(settings)}".strip()
    keep = f" --keep {args.keep}" if args.keep else ""
    curves = " --tensorboard" if args.tensorboard else ""
    group = (
        f" --processes {args.processes} --process-id {args.process_id} "
        f"--coordinator {quote(args.coordinator)}"
        if args.processes
        else ""
    )
    output = quote(str(args.output))
    return f"python model_train.py {where} -o {output}{hdf5_flag(args)}{keep}{curves}{group}"


def backend_setting() -> str:
    """Return how a command chooses the backend of this one; "" where it is the usual one."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return "" if backend == "tensorflow" else f"KERAS_BACKEND={backend} "


def advice_on_rate(args: argparse.Namespace, state: "RunState") -> str:
    """Return how to lower the rate by hand, where the val loss has stalled; "" where not."""
    stalled = state.stalled_epochs
    if stalled == 0 or stalled % config.PATIENCE or state.epoch == state.epochs:
        return ""
    start = next(args.output.glob(f"epoch-{state.epoch:03d}-*"))
    rate = f"-l {state.history['learning_rate'][-1] / 10:.3g}"
    return (
        f"val loss has not improved for {stalled} epochs; to lower the rate, stop with Ctrl-C and "
        f"run: {backend_setting()}{command_to_resume(args, start, f'-e {state.epoch}', rate)}"
    )


def hdf5_flag(args: argparse.Namespace) -> str:
    """Return the --hdf5 flag as it was given."""
    return f" --hdf5 {quote(str(args.hdf5))}" if args.hdf5 else ""


if __name__ == "__main__":
    run_script(main)
