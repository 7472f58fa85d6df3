"""What model_train.py prints besides its epochs: what runs where, how to resume, the results."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.backend import has_bfloat16
from pipeline.command_line import backend_setting, quote, shell_command
from pipeline.errors import UserError, WriteError
from pipeline.run.distributed import DataParallelism
from pipeline.run.output_folder import checkpoint_name, latest_state, list_checkpoints
from pipeline.run.state import RunState, best_epoch
from pipeline.signals import hint_when_stopped

IN_NO_CHECKPOINT = ("hdf5", "keep", "tensorboard", "processes", "process_id", "coordinator")
"""Settings that no checkpoint stores, whose flags the resume command therefore repeats."""
NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""Exists if an NVIDIA driver is loaded."""


def header(
    state: RunState, backend: str, parallel: DataParallelism, images: tuple[int, int]
) -> list[str]:
    """Return what runs where, with notes on this machine; ``images`` are those of train and val."""
    train, val = images
    lines = [
        f"GoogLeNet on {train:,} train and {val:,} val images, {len(state.classes)} classes",
        f"recipe {state.recipe_name}, batches of {state.batch_size}, seed {state.seed}",
        f"{backend} on {', '.join(parallel.devices)}, {state.recipe.network.dtype}",
    ]
    if backend == "tensorflow" and len(parallel.devices) > 1:
        lines.append("note: TensorFlow trains on the first of them; KERAS_BACKEND=jax on all")
    if state.epoch and state.backend != backend:
        lines.append(f"note: begun on {state.backend}; on {backend} the numbers will differ")
    if parallel.on_cpu and NVIDIA_DRIVER.exists():
        lines.append(f"note: {backend} does not use this machine's NVIDIA GPU; README.md says how")
    if state.recipe.network.dtype == "mixed_bfloat16" and parallel.on_cpu and not has_bfloat16():
        lines.append(f"note: bfloat16 may be slow on this CPU with {backend}")
    return lines


def results(folder: Path, tensorboard: bool) -> list[str]:
    """Return which epoch of the run in ``folder`` was best, what lies there, what to run next."""
    state = latest_state(folder)
    best = best_epoch(state.history)
    # an early best epoch may lie in another folder, that of the run before it was resumed
    file = folder / checkpoint_name(best, state.history["val_loss"][best - 1])
    where = f"in {file}" if file.is_file() else f"whose checkpoint is not in {folder}"
    rank1 = state.history["val_accuracy"][best - 1]
    curves = [f"curves for TensorBoard: tensorboard --logdir={quote(folder)}"]
    return [
        f"best epoch by val: {best}, rank-1 {rank1:.2%}, {where}",
        "wrote checkpoints, metric_values.json, metrics.csv, training_plot.jpg and run.jsonl "
        f"to {folder}",
        *(curves if tensorboard else []),
        f"next: {shell_command('model_eval.py', {'-m': folder})}",
    ]


def resume_command(args: argparse.Namespace, **changed: object) -> str:
    """Return the command that resumes the run of ``args``, with ``changed`` short flags."""
    kept = {f"--{name.replace('_', '-')}": getattr(args, name) for name in IN_NO_CHECKPOINT}
    flags = {f"-{flag}": value for flag, value in changed.items()}
    return shell_command("model_train.py", {"-m": args.output, **flags, "-o": args.output, **kept})


@contextmanager
def resume_hint(args: argparse.Namespace) -> Iterator[None]:
    """Print how to resume the run of ``args`` where a signal or a refused write ends it."""
    before = _dated_checkpoints(args.output)

    def command() -> str:
        if _dated_checkpoints(args.output) != before:
            return resume_command(args)
        return backend_setting() + " ".join(map(quote, ["python", *sys.argv]))

    def hint() -> str:
        return f"the running epoch is lost, finished ones are kept; to resume: {command()}"

    try:
        with hint_when_stopped(hint):
            yield
    except WriteError as error:
        raise UserError(f"{error}; to resume: {command()}") from error


def _dated_checkpoints(folder: Path) -> dict[Path, int]:
    """Return when each checkpoint was written; none is opened, for SIGKILL may follow soon."""
    return {path: path.stat().st_mtime_ns for path in list_checkpoints(folder)}


def rate_advice(args: argparse.Namespace, state: RunState, patience: int) -> str:
    """Return how to lower the learning rate, once every ``patience`` stalled epochs; else ""."""
    stalled = state.stalled_epochs
    if stalled == 0 or stalled % patience or state.epoch == state.epochs:
        return ""
    return (
        f"val loss has not improved for {stalled} epochs; to lower the rate, stop with Ctrl-C "
        f"and run: {resume_command(args, l=f'{state.last_rate / 10:.3g}')}"
    )
