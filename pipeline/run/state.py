"""The state of a run: all that resuming needs, but for the weights and the optimizer's state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Annotated

from msgspec import Meta

from pipeline.classes import Classes
from pipeline.errors import UserError
from pipeline.recipe import Count, LearningRate, Mean, Recipe, Seed

History = Mapping[str, Sequence[float]]
NonNegativeInt = Annotated[int, Meta(ge=0)]
METRICS = ("loss", "accuracy", "top5_accuracy", "val_loss", "val_accuracy", "val_top5_accuracy",
           "learning_rate")  # fmt: skip


def epoch_rank(val_accuracy: float | None, val_loss: float | None) -> tuple[float, float]:
    """Return a key that is highest for the best epoch: by accuracy, then by lower loss.

    None and NaN rank lowest.
    """
    values = val_accuracy, None if val_loss is None else -val_loss
    first, second = (-math.inf if v is None or math.isnan(v) else v for v in values)
    return first, second


def best_epoch(history: History) -> int:
    """Return the best epoch, from 1, by ``epoch_rank``; the first if tied."""
    losses = history.get("val_loss") or [0.0] * len(history["val_accuracy"])
    ranks = list(map(epoch_rank, history["val_accuracy"], losses))
    return ranks.index(max(ranks)) + 1


def check_losses(epoch: int, *losses: float) -> None:
    """Check that the ``losses`` of ``epoch`` are finite.

    Raises:
        UserError: One is not.
    """
    if not all(map(math.isfinite, losses)):
        advice = (
            "start again at a lower rate (-l)"
            if epoch == 1
            else "resume from an earlier checkpoint (-m) at a lower rate (-l)"
        )
        raise UserError(f"the loss of epoch {epoch} is NaN or infinite; {advice}")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run after ``epoch`` finished epochs, as each checkpoint's metadata stores it."""

    recipe_name: str
    recipe: Recipe
    seed: Seed
    batch_size: Count
    learning_rate: LearningRate | None
    """The constant rate set by hand; None follows the recipe."""
    epochs: Count
    """The epoch to end at."""
    data: Mapping[str, str]
    """The fingerprints of the train and the val split (see hdf5_writer.py)."""
    means: tuple[Mean, Mean, Mean]
    """Of the train split's R, G and B channels, 0 to 255."""
    classes: Classes
    backend: str
    """What Keras ran on; "" before the run began."""
    branch: NonNegativeInt
    """How often the run went back to an earlier epoch: the newest branch is the run."""
    epoch: NonNegativeInt
    history: History
    """A list for each of ``METRICS``, one value per epoch."""

    def __post_init__(self) -> None:
        self.recipe.check()
        if set(self.data) != {"train", "val"}:
            raise ValueError("its data are not a train and a val split")
        if any(len(self.history.get(name, ())) != self.epoch for name in METRICS):
            raise ValueError("its history does not have a value for each epoch")

    @property
    def size_to_evaluate(self) -> int:
        """The image size in pixels that it was validated at after ``epoch``."""
        return self.recipe.size_to_evaluate(max(self.epoch, 1))

    def evaluated_at(self, size: int) -> "RunState":
        """Return a copy that evaluates at ``size``; no run resumes from it.

        Later image sizes are dropped, for ``evaluation_size`` applies to the last one only.
        """
        begun = tuple(pair for pair in self.recipe.image_sizes if pair[0] <= max(self.epoch, 1))
        return replace(self, recipe=replace(self.recipe, image_sizes=begun, evaluation_size=size))

    @property
    def last_rate(self) -> float | None:
        """The learning rate of the last step; None before the first epoch."""
        return self.history["learning_rate"][-1] if self.epoch else None

    @property
    def stalled_epochs(self) -> int:
        """How many of the last epochs, all at one rate, did not lower the val loss."""
        losses, rates = self.history["val_loss"], self.history["learning_rate"]
        since_lowest = len(losses) - 1 - losses.index(min(losses))
        at_this_rate = takewhile(lambda rate: rate == rates[-1], reversed(rates))
        return min(since_lowest, len(list(at_this_rate)))

    def continues(self, earlier: "RunState") -> bool:
        """Return whether ``earlier``'s history is the beginning of this one's."""
        ours, theirs = self.history, earlier.history
        return all(list(ours[m][: earlier.epoch]) == list(theirs[m]) for m in METRICS)

    def after_epoch(self, values: Mapping[str, float]) -> "RunState":
        """Return the state one finished epoch later; ``values`` has one for each metric."""
        history = {name: [*self.history[name], float(values[name])] for name in METRICS}
        return replace(self, epoch=self.epoch + 1, history=history)
