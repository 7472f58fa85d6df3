"""A recipe: everything that decides how a network is built and trained, as one table of values.

A recipe is data. It is stored in every checkpoint, so a run can be resumed, compared with
the recipe as it is today, and understood years later. The values live in ``config/``.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pipeline.backend import has_bfloat16
from pipeline.errors import UserError

AUTO = "auto"
SMALLEST_IMAGE, LARGEST_IMAGE = 32, 1024
"""Pixels a side; a smaller image leaves the network's last grid no pixel."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is built, fed and trained. Epochs count from 1."""

    # The run
    epochs: int
    batch_size: int

    # The network (see pipeline/nn/googlenet.py)
    stem: str = "paper"
    """``"paper"``: 7x7 stride 2; ``"fine"``: 5x5 stride 1, which keeps a grid twice as fine."""
    width: float = 1.0
    """Multiplies every filter count of Table 1."""
    relu_before_norm: bool = False
    l2: float = 0.0
    """Penalty on the squared convolution and classifier weights, added to the loss."""
    stage_dropout: float = 0.0
    """Fraction dropped after each of the stages 3, 4 and 5."""
    dropout: float = 0.4
    """Fraction dropped before the classifier."""
    squeeze_excite: int = 0
    """After each inception module, its channels are weighted by what the whole image shows,
    through a layer so many times narrower; 0: no such layers."""
    norm_momentum: float = 0.99
    """How slowly batch norm's running statistics follow the batches."""
    dtype: str = "float32"
    """``"mixed_bfloat16"`` computes in 16 bits and keeps the weights in 32; ``"auto"`` does so
    where TensorFlow finds instructions for it in the CPU: ``for_this_machine`` decides."""

    # The optimizer (see pipeline/nn/optimizers.py)
    optimizer: str = "sgd"
    """``"sgd"``, with Nesterov momentum; ``"muon"``, its steps made orthogonal (see muon.py);
    ``"adam"``, with Keras's defaults."""
    momentum: float = 0.9
    """Of SGD and Muon."""
    learning_rate: float = 0.1
    """The first rate, or with a warm-up the highest."""
    rate_drops: tuple[tuple[int, float], ...] = ()
    """(first epoch, rate) of each later rate. Empty: a cosine from the highest rate to zero."""
    warmup_epochs: float = 0.0
    """The rate rises linearly from zero over these; cosine only."""
    weight_decay: float = 0.0
    """Fraction of ``learning_rate`` x weight taken off at each step; batch norm and biases keep
    theirs. With momentum 0.9, ten times the value that other libraries add to the gradient."""
    label_smoothing: float = 0.0
    averaging: float = 0.0
    """Momentum of the averaged weights, which are evaluated and saved; 0: none."""

    # The images (see pipeline/preprocessing/augmentation.py)
    image_sizes: tuple[tuple[int, int], ...] = ((1, 64),)
    """(first epoch, pixels a side), rising: small images first cost less."""
    rotation: float = 0.0
    """Degrees, to either side."""
    shift: float = 0.0
    """Fraction of the side, in each direction."""
    shear: float = 0.0
    """Degrees, to either side."""
    zoom: float = 0.0
    """Each axis is scaled by 1 - zoom to 1 + zoom."""
    flip: str = "none"
    """``"random"``: mirror half the images, drawn anew each epoch; ``"alternating"``: mirror each
    image in every other epoch, its first drawn by chance, so that two epochs show both sides."""

    trivial_augment: bool = False
    """One more change an image, of kind and strength drawn evenly (see trivial_augment.py)."""
    erasing: float = 0.0
    """Share of the images that lose a rectangle to noise (see mixing.py)."""
    cutmix: float = 0.0
    """Alpha of CutMix: a rectangle comes from another image, with its share of the label."""
    mixup: float = 0.0
    """Alpha of mixup: another image is blended in, with its share of the label. With both, each
    batch has one or the other."""

    def __post_init__(self) -> None:
        if not self.image_sizes or self.image_sizes[0][0] != 1:
            raise ValueError("image_sizes must begin with epoch 1")
        if self.optimizer == "muon" and not self.momentum:
            raise ValueError("muon needs a momentum above 0")
        if not all(SMALLEST_IMAGE <= size <= LARGEST_IMAGE for _, size in self.image_sizes):
            raise ValueError(f"image_sizes must be {SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels")
        if self.warmup_epochs and not 0 < self.warmup_epochs < self.epochs:
            raise ValueError("warmup_epochs must leave some of the epochs for the fall of the rate")

    def image_size(self, epoch: int) -> int:
        """Return the pixels a side that the images of ``epoch`` have."""
        return [size for first, size in self.image_sizes if first <= epoch][-1]

    def phases(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of epochs with one image size, from ``first`` to ``last``."""
        starts = [start for start, _ in self.image_sizes if first < start <= last]
        for begin, following in itertools.pairwise([first, *starts, last + 1]):
            yield begin, following - 1

    def for_this_machine(self) -> "Recipe":
        """Return the recipe with what is left to the machine decided."""
        if self.dtype != AUTO:
            return self
        return replace(self, dtype="mixed_bfloat16" if has_bfloat16() else "float32")

    def to_json(self) -> dict[str, Any]:
        """Return the values as JSON keeps them: tuples become lists."""
        return {name: _lists(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """Rebuild a recipe from ``to_json``.

        Raises:
            UserError: A value is unknown or makes no sense. One that is missing has its default.
        """
        try:
            recipe = cls(**{name: _tuples(value) for name, value in values.items()})
            check_types(recipe)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise UserError(f"its recipe is of another version ({error})") from error
        return recipe

    def differences(self, other: "Recipe") -> list[str]:
        """Name each value that ``other`` has otherwise, as ``field ours, now theirs``.

        What ``other`` leaves to the machine agrees with anything: a run resumes as it began.
        """
        if other.dtype == AUTO:
            other = replace(other, dtype=self.dtype)
        pairs = ((field.name, getattr(self, field.name), getattr(other, field.name))
                 for field in fields(self))  # fmt: skip
        return [f"{name} {ours}, now {theirs}" for name, ours, theirs in pairs if ours != theirs]


def check_types(record: Any) -> None:
    """Check a dataclass that came from a file against the types its fields declare.

    Raises:
        TypeError: One is otherwise; names it.
    """
    for name, declared in get_type_hints(type(record)).items():
        if not _is_of_type(getattr(record, name), declared):
            raise TypeError(f"{name} is {getattr(record, name)!r}")


def _is_of_type(value: Any, declared: Any) -> bool:
    kind, arguments = get_origin(declared), get_args(declared)
    if kind is UnionType:
        return any(_is_of_type(value, choice) for choice in arguments)
    if kind is None:
        allowed = (int, float) if declared is float else declared
        return isinstance(value, allowed) and isinstance(value, bool) == (declared is bool)
    if not isinstance(value, kind) or isinstance(value, str):
        return False
    if issubclass(kind, Mapping):
        return all(_is_of_type(item, arguments[1]) for item in value.values())
    if kind is tuple and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(_is_of_type, value, arguments))
    return all(_is_of_type(item, arguments[0]) for item in value)


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
