"""Checkpoints: Keras files that hold all a run needs to resume.

A checkpoint opens with plain ``keras.saving.load_model``. What Keras does not keep, the
``RunState``, lies in the file's own metadata. Equal runs write equal files, byte for byte.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import h5py
import msgspec
import numpy as np

from pipeline.errors import UserError, first_line, is_out_of_memory
from pipeline.io.files import atomic_write, explain_read_refusal
from pipeline.run.state import RunState

if TYPE_CHECKING:
    import keras

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MAX_TEXT_BYTES = 2**23
"""Bytes of a JSON member; real ones have 0.2 MB, and take 25 times as much memory when parsed."""
KEY, FORMAT = "googlenet_tiny_imagenet", 2
HALF_PRECISION = ("bfloat16", "mixed_bfloat16", "float16", "mixed_float16")


def save_checkpoint(model: "keras.Model", path: Path, state: RunState | None = None) -> None:
    """Write ``model`` with its optimizer, and with the ``state`` of its run, atomically.

    Raises:
        UserError: The file cannot be written; an earlier one of that name stays.
    """
    with atomic_write(path) as unfinished:
        model.save(unfinished)
        _write_with_state(_read_members(unfinished), unfinished, state)


def read_state(path: Path) -> RunState:
    """Return the state of the run that ``path`` was saved in, without loading the model.

    Raises:
        UserError: It is missing, damaged, or no checkpoint of this project.
    """
    return _read_record(path)[0]


def _read_record(path: Path) -> tuple[RunState, Any]:
    """Return a checkpoint's run state: validated, and as it is stored."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a checkpoint that model_train.py wrote")
    with _explain_damage(path), ZipFile(path) as archive:
        _check_members(archive)
        record = dict(json.loads(archive.read(METADATA))).get(KEY)
    if not isinstance(record, dict):
        raise UserError(f"{path} holds no record of a run; name a file that model_train.py wrote")
    if record.get("format") != FORMAT:
        raise UserError(f"{path} was written by another version of this project; use that")
    stored = record.get("state")
    try:
        return msgspec.convert(stored, RunState), stored
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path} holds an incomplete record of a run ({error}); use another checkpoint"
        ) from error


def read_state_to_resume(path: Path) -> RunState:
    """Return the state as ``read_state`` does, of a checkpoint that a run can resume from.

    Raises:
        UserError: It has no optimizer state (an exported model), or recipe values unknown to this
            version; or as ``read_state``.
    """
    state, stored = _read_record(path)
    with _explain_damage(path):
        if not _optimizer_shapes(path):
            raise UserError(
                f"{path} is a model to predict with, without its optimizer's state; training "
                "resumes from the checkpoints of its run alone"
            )
    if unknown := _unknown_values(stored["recipe"], msgspec.to_builtins(state.recipe)):
        raise UserError(
            f"{path} was trained with {', '.join(unknown)}, which this version of the project "
            "no longer has; resume with the version that began the run"
        )
    return state


def _unknown_values(stored: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Return a stored recipe's values that ``known`` lacks, but for false, 0 and empty ones."""
    found = [f"{name} {value}" for name, value in stored.items() if name not in known and value]
    for name, part in known.items():
        if isinstance(part, dict):
            found += _unknown_values(stored.get(name, {}), part)
    return found


def copy_checkpoint(path: Path, target: Path, state: RunState) -> None:
    """Write a checkpoint's contents with another ``state`` to ``target``, atomically.

    Raises:
        UserError: The checkpoint is damaged, or the file cannot be written.
    """
    with _explain_damage(path):
        members = _read_members(path)
    with atomic_write(target) as unfinished:
        _write_with_state(members, unfinished, state)


def load_model(path: Path) -> "keras.Model":
    """Load a model to predict with; Keras's safe mode runs no foreign code.

    Raises:
        UserError: It is damaged, has weights that are not finite, or asks for code of its own.
    """
    import keras

    with _explain_damage(path):
        _read_members(path)  # checks names, sizes and CRCs before Keras opens it
        model = keras.saving.load_model(path, compile=False)
        _check_finite(model)
    return model


def restore(model: "keras.Model", path: Path) -> None:
    """Load the weights and the optimizer's state into a compiled model of the same architecture.

    Raises:
        UserError: The state is incomplete or does not fit: a run cannot resume exactly from it.
    """
    with _explain_damage(path):
        stored = _optimizer_shapes(path)
        needed = sorted(tuple(variable.shape) for variable in model.optimizer.variables)
        if stored != needed:
            raise UserError(
                f"{path} does not hold this optimizer's state ({len(stored)} variables, and "
                f"{len(needed)} are needed); resume from another checkpoint"
            )
        model.load_weights(path)
        _check_finite(model)


def _check_finite(model: "keras.Model") -> None:
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError("some of its weights are not finite")


def _optimizer_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the sorted shapes of the optimizer's variables in a checkpoint."""
    weights = io.BytesIO(_read_members(path)[WEIGHTS])
    with h5py.File(weights, "r") as file:
        variables = file.get("optimizer/vars", {})
        return sorted(tuple(variable.shape) for variable in variables.values())


def _read_members(path: Path) -> dict[str, bytes]:
    """Return the contents of a Keras file's members, if it holds these and no others."""
    with ZipFile(path) as archive:
        _check_members(archive)
        return {name: archive.read(name) for name in (METADATA, CONFIG, WEIGHTS)}


def _check_members(archive: ZipFile) -> None:
    members = archive.infolist()
    if sorted(member.filename for member in members) != sorted((CONFIG, METADATA, WEIGHTS)):
        raise ValueError("its members are not a Keras file's")
    if max(archive.getinfo(name).file_size for name in (CONFIG, METADATA)) > MAX_TEXT_BYTES:
        raise ValueError("its description is larger than a checkpoint's can be")
    if any(member.compress_type != ZIP_STORED for member in members):
        raise ValueError("it is compressed, and might unpack to any size")


def _write_with_state(members: dict[str, bytes], path: Path, state: RunState | None) -> None:
    """Write a Keras file with ``state`` in its metadata, and without dates."""
    metadata = json.loads(members[METADATA])
    metadata.pop("date_saved", None)
    if state is not None:
        metadata[KEY] = {"format": FORMAT, "state": msgspec.to_builtins(state)}
    members = {**members, METADATA: json.dumps(metadata).encode()}
    with ZipFile(path, "w") as archive:
        for name, contents in members.items():
            archive.writestr(ZipInfo(name), contents)  # dated 1980: equal runs write equal files


@contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    """Turn what zipfile, JSON, HDF5 or Keras raise on a damaged file into a UserError."""
    try:
        with explain_read_refusal(path):
            yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        if not path.exists():
            raise UserError(f"{path} was deleted meanwhile; run this again") from error
        brief = first_line(error)
        if path.is_file() and h5py.is_hdf5(path):
            brief = "it is HDF5, as Keras 2 wrote models"
        raise UserError(
            f"{path} is not a whole Keras file of this project ({brief}); use another checkpoint"
        ) from error


def export(model: "keras.Model", target: Path, state: RunState) -> None:
    """Write a loaded model for inference, with ``state`` in its metadata.

    It computes in float32. Kernels are stored in float16 and read as float32; all else keeps its
    precision, since batch norm's variances exceed float16's range.

    Raises:
        UserError: ``target`` cannot be written.
    """
    with atomic_write(target) as unfinished:
        model.save(unfinished)
        members = _read_members(unfinished)
        members[CONFIG] = json.dumps(_in_float32(json.loads(members[CONFIG]))).encode()
        members[WEIGHTS] = _with_half_kernels(members[WEIGHTS])
        _write_with_state(members, unfinished, state)


def _in_float32(config: Any, is_dtype: bool = False) -> Any:
    """Return a model's parsed config with float32 for every half-precision dtype and policy."""
    if isinstance(config, dict):
        return {k: _in_float32(value, is_dtype or k == "dtype") for k, value in config.items()}
    if isinstance(config, list):
        return [_in_float32(value, is_dtype) for value in config]
    return "float32" if is_dtype and config in HALF_PRECISION else config


def _with_half_kernels(weights: bytes) -> bytes:
    """Return the HDF5 file with every array of more than one axis in float16."""
    halved = io.BytesIO()
    with h5py.File(io.BytesIO(weights), "r") as source, h5py.File(halved, "w") as target:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                copied = target.create_group(name)
            else:
                # by NumPy: HDF5's own cast halves what rounds up to a power of two
                array = item[()].astype("float16" if item.ndim > 1 else item.dtype)
                copied = target.create_dataset(name, data=array)
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return halved.getvalue()
