"""What a run is and how far it has come: everything but the weights that going on needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.hdf5_dataset import HDF5Dataset
from pipeline.recipe import Recipe, check_types

History = Mapping[str, Sequence[float]]
METRICS = ("loss", "accuracy", "top5_accuracy", "val_loss", "val_accuracy", "val_top5_accuracy",
           "learning_rate")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after ``epoch`` finished epochs. Each checkpoint stores one in its metadata."""

    recipe_name: str
    recipe: Recipe
    seed: int
    batch_size: int
    learning_rate: float | None
    """The constant rate set by hand; None follows the recipe."""
    epochs: int
    """The epoch to end at."""
    data: Mapping[str, str]
    """The fingerprint of the train and the val split."""
    data_seed: int
    """What the test split was drawn with."""
    means: Sequence[float]
    """Of the train split's R, G and B channels, 0 to 255."""
    class_ids: Sequence[str]
    class_names: Sequence[str]
    epoch: int
    history: History
    """A list for each of ``METRICS``, a value an epoch."""

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that ``epoch`` was trained and validated on."""
        return self.recipe.image_size(max(self.epoch, 1))

    def after_epoch(self, values: Mapping[str, float]) -> "RunState":
        """Return the state one finished epoch later; ``values`` has one for each metric."""
        history = {name: [*self.history[name], float(values[name])] for name in METRICS}
        return replace(self, epoch=self.epoch + 1, history=history)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "recipe": self.recipe.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunState":
        """Rebuild a state.

        Raises:
            UserError: A value is missing, or the history does not fit the epoch.
        """
        try:
            state = cls(**{**values, "recipe": Recipe.from_json(values["recipe"])})
            check_types(state)
            lengths = {len(state.history[name]) for name in METRICS}
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"its record of the run is incomplete ({error})") from error
        if lengths != {state.epoch}:
            raise UserError("its history does not have a value for each epoch")
        return state


def new_run(
    recipe_name: str,
    recipe: Recipe,
    train: HDF5Dataset,
    val: HDF5Dataset,
    means: Sequence[float],
    *,
    seed: int,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    epochs: int | None = None,
) -> RunState:
    """Return a run that has not begun; a setting that is None comes from the recipe."""
    return RunState(
        recipe_name=recipe_name,
        recipe=recipe,
        seed=seed,
        batch_size=batch_size or recipe.batch_size,
        learning_rate=learning_rate,
        epochs=epochs or recipe.epochs,
        data=_fingerprints(train, val),
        data_seed=train.seed,
        means=list(means),
        class_ids=list(train.class_ids),
        class_names=list(train.class_names),
        epoch=0,
        history={name: [] for name in METRICS},
    )


def check_data(state: RunState, train: HDF5Dataset, val: HDF5Dataset) -> None:
    """Check that a stored run was begun on these data.

    Raises:
        UserError: They differ; names how.
    """
    if list(state.class_ids) != list(train.class_ids):
        raise UserError(
            f"the checkpoint tells {len(state.class_ids)} classes apart and {train.path} holds "
            f"{len(train.class_ids)}, or others; name the data it was trained on with --hdf5"
        )
    differing = [s for s, value in _fingerprints(train, val).items() if state.data[s] != value]
    if differing:
        raise UserError(
            f"the run was begun on other data: its {' and '.join(differing)} split differs from "
            f"the one in {train.path.parent}; name its folder with --hdf5"
        )


def check_settings(state: RunState, asked: Mapping[str, Any]) -> None:
    """Check that the settings given again (those not None) agree with a stored run's.

    Raises:
        UserError: One does not; names both values.
    """
    for name, value in asked.items():
        stored = getattr(state, name)
        if value is not None and value != stored:
            raise UserError(
                f"the run was begun with {name.replace('_', ' ')} {stored}, not {value}; leave "
                "the flag out to go on, or begin a fresh run in another folder"
            )


def check_recipe(state: RunState, recipes: Mapping[str, Recipe]) -> None:
    """Check that a stored run's recipe is still what it was.

    Raises:
        UserError: It is gone or was edited; names the values that differ.
    """
    name = state.recipe_name
    if name not in recipes:
        raise UserError(f"the run's recipe {name!r} is no longer configured; put it back to go on")
    differences = state.recipe.differences(recipes[name])
    if differences:
        raise UserError(
            f"recipe {name!r} was edited since the run began ({'; '.join(differences)}); put it "
            "back, or begin a fresh run in another folder"
        )


def _fingerprints(train: HDF5Dataset, val: HDF5Dataset) -> dict[str, str]:
    return {"train": train.fingerprint, "val": val.fingerprint}
