"""Start a run, or resume it from a checkpoint if its settings, data and recipe are unchanged."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import HDF5Dataset, open_split
from pipeline.recipe import Recipe, choose_recipe
from pipeline.run.checkpoint import read_state
from pipeline.run.output_folder import HISTORY, SUPERSEDED, latest_checkpoint, list_checkpoints
from pipeline.run.state import METRICS, RunState


def find_checkpoint(model: Path | None, output: Path) -> Path | None:
    """Return the checkpoint to resume from; None for a fresh run.

    Args:
        model: A checkpoint, or a folder whose latest is taken; None for a fresh run.
        output: Where the run writes.

    Raises:
        UserError: ``output`` holds another run, or ``model`` no checkpoint.
    """
    folder = output.resolve()
    is_begun = bool(list_checkpoints(output)) or (output / HISTORY).exists()
    if model and model.resolve() == folder and not is_begun:
        raise UserError(f"no epoch of a run has ended in {output} yet; leave -m out to begin one")
    start = latest_checkpoint(model) if model and model.is_dir() else model
    if start and not {start.parent.resolve(), start.resolve().parent}.isdisjoint(
        (folder, (folder / SUPERSEDED).resolve())
    ):
        return start
    if list_checkpoints(output):
        outside = f", and {start} is not in it" if start else ""
        raise UserError(
            f"{output} holds a run already{outside}; resume it by -m {output}, "
            "or name another folder with -o"
        )
    if (output / HISTORY).exists():
        raise UserError(f"{output} holds another run's {HISTORY}; name another folder")
    return start


def fresh_run(
    recipe_name: str,
    recipe: Recipe,
    seed: int,
    train: HDF5Dataset,
    val: HDF5Dataset,
    *,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
) -> RunState:
    """Return the state before the first epoch; where None is given, ``recipe`` decides."""
    return RunState(
        recipe_name=recipe_name,
        recipe=recipe,
        seed=seed,
        batch_size=batch_size or recipe.batch_size,
        learning_rate=learning_rate,
        epochs=epochs or recipe.epochs,
        data={"train": train.fingerprint, "val": val.fingerprint},
        means=train.means,
        classes=train.classes,
        backend="",
        branch=0,
        epoch=0,
        history={name: [] for name in METRICS},
    )


def resumed_run(
    stored: RunState,
    recipes: Mapping[str, Recipe],
    train: HDF5Dataset,
    val: HDF5Dataset,
    expected: Mapping[str, object],
    learning_rate: float | None = None,
    epochs: int | None = None,
) -> RunState:
    """Return the state to resume with.

    Args:
        stored: Read from the checkpoint.
        recipes: As they are configured now.
        train: The split to train on.
        val: The split to validate on.
        expected: Required values of ``stored``, by name; None: any.
        learning_rate: A constant rate from here on; None: as before, also where that is constant.
        epochs: The epoch to end at; None: as before.

    Raises:
        UserError: Values, data or recipe differ from the run's; says how.
    """
    check_classes(stored, train)
    for split, dataset in (("train", train), ("val", val)):
        if stored.data[split] != dataset.fingerprint:
            raise UserError(
                f"the run was begun on other data: its {split} split differs from {dataset.path}; "
                "name its folder with --hdf5, or, if it was built again since, begin a fresh run "
                "in another folder"
            )
    for name, value in expected.items():
        was = getattr(stored, name)
        if value not in (None, was):
            other = "begin a fresh run in another folder"
            if name == "epoch":
                other = f"name the checkpoint of epoch {value} with -m"
            raise UserError(
                f"the checkpoint says {name.replace('_', ' ')} {was}, not {value}; leave the flag "
                f"out to resume, or {other}"
            )
    _check_recipe(stored, recipes)
    return replace(
        stored,
        learning_rate=learning_rate or stored.learning_rate,
        epochs=epochs or stored.epochs,
    )


def check_classes(state: RunState, dataset: HDF5Dataset) -> None:
    """Check that a model has the classes of ``dataset``.

    Raises:
        UserError: They are not.
    """
    if state.classes.ids != dataset.classes.ids:
        raise UserError(
            f"the model has {len(state.classes)} classes and {dataset.path} has "
            f"{len(dataset.classes)}, or others; name its data with --hdf5, or a model of these "
            "with -m"
        )


def can_evaluate(model: Path, hdf5: Path) -> bool:
    """Return whether ``model`` is of a run, and has the classes of the test split in ``hdf5``."""
    try:
        check_classes(read_state(model), open_split(hdf5, "test"))
    except UserError:
        return False
    return True


def may_have_seen(state: RunState, dataset: HDF5Dataset) -> bool:
    """Return whether a model may have been trained on images of ``dataset``.

    It was not if it was trained on the same build's train split, or validated on ``dataset``.
    """
    trained_on, of_build = state.data["train"], dataset.train_fingerprint
    known = dataset.split == "train" or dataset.fingerprint == state.data.get(dataset.split)
    return not known and of_build not in (None, trained_on)


def check_trainable(state: RunState, images: int) -> None:
    """Check that a run has a whole batch, an epoch to train and a rate above zero.

    Raises:
        UserError: It lacks one of them.
    """
    if state.batch_size > images:
        raise UserError(
            f"the batch size {state.batch_size} exceeds the {images} train images; "
            "give a smaller one with -b"
        )
    if state.epoch >= state.epochs:
        raise UserError(
            f"epoch {state.epoch} is done and the run ends at epoch {state.epochs}; "
            "name a later one with -n to resume"
        )
    falls_to_zero = not state.recipe.optimizer.rate_drops and state.learning_rate is None
    planned = state.recipe.epochs
    if state.epochs > planned and falls_to_zero:
        advice = f"to train to epoch {state.epochs} give a rate with -l too"
        if state.epoch < planned:  # the rate of -l would be constant from here on
            advice = f"give -n {planned}, and resume with a later -n and -l when these are done"
        raise UserError(
            f"the rate of recipe {state.recipe_name!r} is zero after epoch {planned}; {advice}"
        )


def _check_recipe(state: RunState, recipes: Mapping[str, Recipe]) -> None:
    name = state.recipe_name
    if name not in recipes:
        raise UserError(f"the run's recipe {name!r} is no longer configured; put it back to resume")
    differences = state.recipe.differences(choose_recipe(recipes, name))
    if differences:
        raise UserError(
            f"recipe {name!r} was edited since the run began ({'; '.join(differences)}); put it "
            "back, or begin a fresh run in another folder"
        )
