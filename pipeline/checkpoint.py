"""Checkpoints: Keras files that hold all a run needs to go on, and the folder they lie in.

A checkpoint opens with plain ``keras.saving.load_model``. What Keras does not keep (the run's
settings, its history, the data's fingerprint, the classes) lies in the file's own metadata.
Equal runs write equal files, byte for byte.
"""

import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import h5py

from pipeline.errors import UserError
from pipeline.files import written_whole
from pipeline.run_state import RunState

if TYPE_CHECKING:
    import keras

PATTERN = "epoch-*.keras"
METADATA, WEIGHTS = "metadata.json", "model.weights.h5"
KEY, FORMAT = "googlenet_tiny_imagenet", 1
SUPERSEDED = "superseded"
UNDATED = (1980, 1, 1, 0, 0, 0)


class EpochCheckpoint:
    """Writes a checkpoint after each epoch.

    Args:
        folder: Where to.
        keep: Leave only the newest so many, and the best by val accuracy; None leaves all.
    """

    def __init__(self, folder: Path, keep: int | None = None) -> None:
        self.folder = folder
        self._keep = keep

    def save(self, model: "keras.Model", state: RunState) -> Path:
        """Write ``epoch-026-val_loss-2.345.keras`` with the model, its optimizer and ``state``.

        Raises:
            UserError: It cannot be written; the earlier checkpoints are as they were.
        """
        path = (
            self.folder
            / f"epoch-{state.epoch:03d}-val_loss-{state.history['val_loss'][-1]:.3f}.keras"
        )
        with written_whole(path) as unfinished:
            model.save(unfinished)
            _rewrite_metadata(unfinished, unfinished, state)
        if self._keep:
            self._thin(state)
        return path

    def _thin(self, state: RunState) -> None:
        best = best_epoch(state)
        for path in self.folder.glob(PATTERN):
            epoch = _epoch_in_name(path)
            if epoch <= state.epoch - self._keep and epoch != best:
                path.unlink()


def best_epoch(state: RunState) -> int:
    """Return the epoch of the highest val accuracy, the first of equals."""
    accuracies = state.history["val_accuracy"]
    return accuracies.index(max(accuracies)) + 1


def read_state(path: Path) -> RunState:
    """Return the state of the run that ``path`` was saved in, without loading the model.

    Raises:
        UserError: It is missing, damaged, or no checkpoint of this project.
    """
    record = _read_metadata(path).get(KEY)
    if not isinstance(record, dict) or not isinstance(record.get("state"), dict):
        raise UserError(f"{path} holds no record of a run; name a file that model_train.py wrote")
    if record.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of this project; use that to go on")
    try:
        return RunState.from_json(record["state"])
    except UserError as error:
        raise UserError(f"{path} cannot be used: {error}") from error


def latest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint of the highest recorded epoch in ``folder``.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise UserError(f"{folder} holds no checkpoint; name a file or folder that does with -m")
    return max(paths, key=lambda path: read_state(path).epoch)


def load_model(path: Path) -> "keras.Model":
    """Load a model to predict with, from any Keras file; safe mode keeps foreign code out.

    Raises:
        UserError: It is damaged, or asks for code of its own.
    """
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds on files that are not whole
        brief = str(error).strip().splitlines()[0]
        raise UserError(f"{path} cannot be loaded ({brief}); use another file") from error


def restore(model: "keras.Model", path: Path) -> None:
    """Load weights and optimizer state into a compiled model of the same make.

    Raises:
        UserError: The state is incomplete or does not fit: a run cannot go on exactly from it.
    """
    try:
        with ZipFile(path) as archive:
            weights = io.BytesIO(archive.read(WEIGHTS))
        with h5py.File(weights, "r") as file:
            stored = [tuple(v.shape) for v in file.get("optimizer/vars", {}).values()]
        needed = [tuple(v.shape) for v in model.optimizer.variables]
        if sorted(stored) != sorted(needed):
            raise UserError(
                f"{path} lacks the optimizer's state ({len(stored)} of {len(needed)} variables "
                "fit); go on from another checkpoint"
            )
        model.load_weights(path)
    except (BadZipFile, KeyError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or does not fit; go on from another one") from error


def move_later_checkpoints(folder: Path, epoch: int) -> list[Path]:
    """Move checkpoints past ``epoch`` to ``folder/superseded/``; return their new paths."""
    later = [path for path in sorted(folder.glob(PATTERN)) if read_state(path).epoch > epoch]
    return [_set_aside(path) for path in later]


def adopt(path: Path, state: RunState, folder: Path) -> Path:
    """Make ``folder`` hold the checkpoint ``path`` with ``state``'s settings; return it there.

    From then on ``folder`` alone says how the run goes on, also if it is killed before its next
    epoch ends. A checkpoint of ``folder`` whose settings change is kept under ``superseded/``.
    """
    adopted = folder / path.name
    if adopted.exists() and read_state(adopted) == state:
        return adopted
    with written_whole(adopted) as unfinished:
        _rewrite_metadata(path, unfinished, state)
        if adopted.exists():
            shutil.copyfile(adopted, _free_name(folder / SUPERSEDED, adopted.name))
    return adopted


def _set_aside(path: Path) -> Path:
    return path.rename(_free_name(path.parent / SUPERSEDED, path.name))


def _free_name(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path, number = folder / name, 2
    while path.exists():
        path = folder / f"{Path(name).stem}-{number}.keras"
        number += 1
    return path


def _epoch_in_name(path: Path) -> int:
    return int(path.name.split("-")[1])


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a checkpoint that model_train.py wrote")
    try:
        with ZipFile(path) as archive:
            return dict(json.loads(archive.read(METADATA)))
    except (BadZipFile, KeyError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole Keras file; use another checkpoint") from error


def _rewrite_metadata(source: Path, target: Path, state: RunState) -> None:
    """Copy the Keras file ``source`` to ``target`` with ``state`` in it, and without dates."""
    with ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members[METADATA])
    metadata.pop("date_saved", None)
    metadata[KEY] = {"format": FORMAT, "state": state.to_json()}
    members[METADATA] = json.dumps(metadata).encode()
    with ZipFile(target, "w") as archive:
        for name, contents in members.items():
            archive.writestr(ZipInfo(name, UNDATED), contents)
