"""What a run is and how far it has come: everything but the weights that resuming needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.recipe import Count, LearningRate, Recipe

HISTORY_FILE = "metric_values.json"
History = Mapping[str, Sequence[float]]
FromZero = Annotated[int, Meta(ge=0)]
Mean = Annotated[float, Meta(ge=0, le=255)]
METRICS = ("loss", "accuracy", "top5_accuracy", "val_loss", "val_accuracy", "val_top5_accuracy",
           "learning_rate")  # fmt: skip


def best_epoch(history: History) -> int:
    """Return the epoch of the highest val accuracy, the first of equals."""
    accuracies = list(history["val_accuracy"])
    return accuracies.index(max(accuracies)) + 1


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after ``epoch`` finished epochs. Each checkpoint stores one in its metadata."""

    recipe_name: str
    recipe: Recipe
    seed: FromZero
    batch_size: Count
    learning_rate: LearningRate | None
    """The constant rate set by hand; None follows the recipe."""
    epochs: Count
    """The epoch to end at."""
    data: Mapping[str, str]
    """The fingerprint of the train and the val split."""
    data_seed: int
    """What the test split was drawn with."""
    means: tuple[Mean, Mean, Mean]
    """Of the train split's R, G and B channels, 0 to 255."""
    class_ids: Annotated[Sequence[str], Meta(min_length=1)]
    class_names: Sequence[str]
    backend: str
    """What Keras ran on; "" before the run began."""
    branch: FromZero
    """How often the run went back behind an epoch that was done."""
    epoch: FromZero
    history: History
    """A list for each of ``METRICS``, a value an epoch."""

    def __post_init__(self) -> None:
        self.recipe.check()
        if set(self.data) != {"train", "val"} or len(self.class_names) != len(self.class_ids):
            raise ValueError("it does not describe the data")
        if any(len(self.history.get(name, ())) != self.epoch for name in METRICS):
            raise ValueError("its history does not have a value for each epoch")

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that ``epoch`` was trained and validated on."""
        return self.recipe.image_size(max(self.epoch, 1))

    @property
    def best_epoch(self) -> int:
        """The epoch of the highest val accuracy, the first of equals."""
        return best_epoch(self.history)

    @property
    def stalled_epochs(self) -> int:
        """How many of the last epochs, all at one rate, did not lower the val loss."""
        losses, rates = list(self.history["val_loss"]), list(self.history["learning_rate"])
        since_lowest = len(losses) - 1 - losses.index(min(losses))
        at_this_rate = 0
        while at_this_rate < len(rates) and rates[-1 - at_this_rate] == rates[-1]:
            at_this_rate += 1
        return min(since_lowest, at_this_rate)

    def continues(self, earlier: "RunState") -> bool:
        """Tell whether ``earlier`` lies on the way to this state."""
        return all(
            list(self.history[name])[: earlier.epoch] == list(earlier.history[name])
            for name in METRICS
        )

    def after_epoch(self, values: Mapping[str, float]) -> "RunState":
        """Return the state one finished epoch later; ``values`` has one for each metric."""
        history = {name: [*self.history[name], float(values[name])] for name in METRICS}
        return replace(self, epoch=self.epoch + 1, history=history)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunState":
        """Rebuild a state.

        Raises:
            UserError: A value is missing, out of range, or does not fit the others.
        """
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise UserError(f"its record of the run is incomplete ({error})") from error


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
        data={"train": train.fingerprint, "val": val.fingerprint},
        data_seed=train.seed,
        means=tuple(means),
        class_ids=list(train.class_ids),
        class_names=list(train.class_names),
        backend="",
        branch=0,
        epoch=0,
        history={name: [] for name in METRICS},
    )


def resumed_run(
    stored: RunState,
    train: HDF5Dataset,
    val: HDF5Dataset,
    recipes: Mapping[str, Recipe],
    *,
    asked: Mapping[str, Any],
    learning_rate: float | None = None,
    epochs: int | None = None,
) -> RunState:
    """Return a stored run as it resumes.

    Args:
        stored: From its checkpoint.
        train: The split it was begun on.
        val: Likewise.
        recipes: As they are configured today.
        asked: Settings given again, by the names of RunState's fields; None where they were not.
        learning_rate: A constant rate from here on; None keeps what was.
        epochs: The epoch to end at; None keeps what was.

    Raises:
        UserError: Settings, data or recipe differ; names how.
    """
    check_classes(stored, train)
    for split, dataset in (("train", train), ("val", val)):
        if stored.data[split] != dataset.fingerprint:
            raise UserError(
                f"the run was begun on other data: its {split} split differs from {dataset.path}; "
                "name its folder with --hdf5"
            )
    for name, value in asked.items():
        was = getattr(stored, name)
        if value is not None and value != was:
            raise UserError(
                f"the checkpoint says {name.replace('_', ' ')} {was}, not {value}; leave the flag "
                "out to resume, or begin a fresh run in another folder"
            )
    _check_recipe(stored, recipes)
    return replace(
        stored,
        learning_rate=learning_rate or stored.learning_rate,
        epochs=epochs or stored.epochs,
    )


def check_classes(state: RunState, dataset: HDF5Dataset) -> None:
    """Check that a model's outputs are the labels of ``dataset``.

    Raises:
        UserError: They are not.
    """
    if list(state.class_ids) != list(dataset.class_ids):
        raise UserError(
            f"the model tells {len(state.class_ids)} classes apart and {dataset.path} holds "
            f"{len(dataset.class_ids)}, or others; name the data it was trained on with --hdf5"
        )


def check_trainable(state: RunState, images: int) -> None:
    """Check that there is something useful to train.

    Raises:
        UserError: There is not; says why.
    """
    if state.batch_size > images:
        raise UserError(
            f"a batch of {state.batch_size} is more than the {images} train images; "
            "give a smaller one with -b"
        )
    if state.epoch >= state.epochs:
        raise UserError(
            f"epoch {state.epoch} is done and the run ends at epoch {state.epochs}; "
            "name a later one with -n to resume"
        )
    falls_to_zero = not state.recipe.optimizer.rate_drops and state.learning_rate is None
    if state.epochs > state.recipe.epochs and falls_to_zero:
        raise UserError(
            f"the rate of recipe {state.recipe_name!r} is zero after epoch "
            f"{state.recipe.epochs}; to train to epoch {state.epochs} give a rate with -l too"
        )


def _check_recipe(state: RunState, recipes: Mapping[str, Recipe]) -> None:
    name = state.recipe_name
    if name not in recipes:
        raise UserError(f"the run's recipe {name!r} is no longer configured; put it back to resume")
    differences = state.recipe.differences(recipes[name])
    if differences:
        raise UserError(
            f"recipe {name!r} was edited since the run began ({'; '.join(differences)}); put it "
            "back, or begin a fresh run in another folder"
        )
