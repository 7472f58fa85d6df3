"""The folder of a run: its checkpoints, its log, and where it resumes."""

import itertools
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.dataset.tiny_imagenet import default_hdf5_folder, find_data_set
from pipeline.errors import UserError
from pipeline.io.files import (
    atomic_write,
    explain_write_errors,
    move_into_place,
    temporary_path,
)
from pipeline.io.regular_files import read_file
from pipeline.printing import say
from pipeline.run.checkpoint import copy_checkpoint, read_state
from pipeline.run.state import History, RunState, best_epoch, epoch_rank

NAME = re.compile(r"epoch-(\d{3,})(-val_loss-(-?\d+\.\d{3}|nan|-?inf))?\.keras")
"""Of a checkpoint (see ``checkpoint_name``); a copy under another name is left alone."""
SUPERSEDED = "superseded"
LOG = "run.jsonl"
"""A JSON object per line, for each start and each epoch: what differs between equal runs."""
HISTORY, TABLE, PLOT = CURVES = "metric_values.json", "metrics.csv", "training_plot.jpg"
"""See ``callbacks/training_monitor.py``."""


def checkpoint_name(epoch: int, val_loss: float | None) -> str:
    """Return the file name of an epoch's checkpoint."""
    loss = "" if val_loss is None else f"-val_loss-{val_loss:.3f}"
    return f"epoch-{epoch:03d}{loss}.keras"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, in order of their names."""
    return sorted(path for path in folder.glob("epoch-*.keras") if NAME.fullmatch(path.name))


def files_of_run(checkpoint: Path) -> list[Path]:
    """Return ``checkpoint`` and its run's others, log and curves, which nothing may replace."""
    run = _run_folder(checkpoint)
    others = (run / name for name in (LOG, *CURVES))
    superseded = (run / SUPERSEDED).glob("*.keras")
    return [checkpoint, *list_checkpoints(run), *superseded, *filter(Path.exists, others)]


def _run_folder(model: Path) -> Path:
    """Return where the run of ``model``, a checkpoint or its folder, writes."""
    folder = model if model.is_dir() else model.parent
    return folder.parent if folder.name == SUPERSEDED else folder


def epoch_of(path: Path) -> int:
    """Return the epoch in the name of a path from ``list_checkpoints``."""
    return int(NAME.fullmatch(path.name)[1])


def latest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that a run in ``folder`` resumes from: the last of its newest branch.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    states = _some_states(folder)
    return max(states, key=lambda path: _place(states[path]))


def _place(state: RunState) -> tuple[int, int]:
    return state.branch, state.epoch


def _merit(state: RunState) -> tuple[float, ...]:
    return *_rank(state.history), -state.epoch


def _rank(history: History, epoch: int = 0) -> tuple[float, float]:
    """Return the ``epoch_rank`` of an epoch, from 1; 0: of the last."""
    return epoch_rank(history["val_accuracy"][epoch - 1], history["val_loss"][epoch - 1])


def _some_states(folder: Path) -> dict[Path, RunState]:
    """Return the state of every checkpoint in ``folder``; refuse one without any."""
    if states := _states(folder):
        return states
    raise UserError(f"{folder} holds no checkpoint; name a file or folder that does with -m")


def checkpoint_to_evaluate(path: Path) -> Path:
    """Return ``path`` or, of a folder, its best checkpoint, and print which that is.

    Raises:
        UserError: There is none, or one in the folder cannot be read.
    """
    if path.is_dir():
        folder, states = path, _some_states(path)
        path = max(states, key=lambda path: _merit(states[path]))
        say(f"best epoch by val rank-1: {path}")
        history = max(states.values(), key=_place).history
        best = best_epoch(history)
        if _rank(history, best) > _rank(states[path].history):
            say(f"note: epoch {best} was better, and its checkpoint is not in {folder}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a checkpoint that model_train.py wrote")
    return path


def find_hdf5(given: Path | None, model: Path | None, data_set: Path) -> Path:
    """Return the folder of the HDF5 files: ``given``, or the last that the model's log names.

    Without either, it is the default folder of ``data_set``, a folder or a zip of that name.

    Raises:
        UserError: ``model`` does not exist.
    """
    if model and not model.exists():
        raise UserError(f"{model} does not exist; name a checkpoint or its folder with -m")
    if given:
        inner = given / "hdf5"  # of a data set's folder
        return inner if inner.is_dir() and not (given / "train.hdf5").exists() else given
    logged = [event.get("hdf5") for event in logged_events(model)] if model else []
    folders = [Path(folder) for folder in logged if isinstance(folder, str)]
    default = default_hdf5_folder(find_data_set(data_set))
    if folders and (folders[-1].is_dir() or not default.is_dir()):
        return folders[-1]
    return default


def logged_events(model: Path) -> list[dict[str, Any]]:
    """Return the log beside ``model``, a checkpoint or a run's folder; [] if it cannot be read."""
    events = []
    with suppress(OSError):
        for line in read_file(_run_folder(model) / LOG).splitlines():
            with suppress(ValueError, RecursionError):  # one line spoils no other
                events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict)]


def unused_path(path: Path) -> Path:
    """Return ``path`` if nothing is there, or else the first free of ``name-2``, ``name-3``, …"""
    others = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in itertools.count(2))
    return next(other for other in itertools.chain([path], others) if not other.exists())


def latest_state(folder: Path) -> RunState | None:
    """Return the state of the latest checkpoint, None where there is none.

    Raises:
        UserError: A checkpoint cannot be read.
    """
    return max(_states(folder).values(), key=_place, default=None)


def begin_branch(
    checkpoint: Path, state: RunState, folder: Path
) -> tuple[RunState, Path, list[Path]]:
    """Record in ``folder`` that its run resumes from ``checkpoint`` with ``state``'s settings.

    If it is killed before its next epoch ends, ``folder`` alone still resumes it this way. Later
    checkpoints and those of other branches move to ``folder/superseded/``, as does a copy of this
    one if more changes than the epoch to end at. Return the run's state, its checkpoint in
    ``folder``, and those moved.

    Raises:
        UserError: A file cannot be read or written.
    """
    resumed = folder / checkpoint_name(state.epoch, state.history["val_loss"][-1])
    states = _states(folder)
    others = {path: other for path, other in states.items() if path != resumed}
    newest = max(map(_place, others.values()), default=(-1, 0))
    if newest >= (state.branch, state.epoch):  # it would pass for the latest
        state = replace(state, branch=1 + max(other.branch for other in states.values()))
    superseded = []
    if states.get(resumed) != state:
        if resumed.exists() and replace(states[resumed], epochs=state.epochs) != state:
            superseded.append(_free_name(resumed))
            with atomic_write(superseded[-1]) as unfinished:
                shutil.copyfile(resumed, unfinished)
        own = temporary_path(resumed, resumed.name) if resumed.is_symlink() else resumed
        copy_checkpoint(checkpoint, own, state)
        if own != resumed:  # what the link leads to may be a cache's, as DVC's, and must stay
            with explain_write_errors(resumed):
                move_into_place(own, resumed)
    for path, other in others.items():
        if other.epoch >= state.epoch or not state.continues(other):
            superseded.append(_free_name(path))
            with explain_write_errors(path):
                if path.is_symlink():  # it may be relative
                    superseded[-1].symlink_to(os.path.realpath(path))
                    path.unlink()
                else:
                    path.rename(superseded[-1])
    return state, resumed, superseded


def _states(folder: Path) -> dict[Path, RunState]:
    """Return the state of every checkpoint in ``folder``."""
    states = {}
    for path in list_checkpoints(folder):
        try:
            states[path] = read_state(path)
        except UserError as error:
            if not os.path.lexists(path):  # --keep has deleted it meanwhile
                continue
            raise UserError(f"{error}; or move it out of {folder}") from error
    return states


def _free_name(path: Path) -> Path:
    """Return a name for ``path`` in ``superseded/`` beside it, which is made as needed."""
    folder = path.parent / SUPERSEDED
    with explain_write_errors(folder):
        folder.mkdir(exist_ok=True)
    return unused_path(folder / path.name)
