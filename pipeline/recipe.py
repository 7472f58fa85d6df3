"""A recipe: everything that decides how a network is built and trained, as one table of values.

It is stored in every checkpoint, so that a run can be resumed, compared with the recipe as it is
today, and understood years later. The values are in ``config/``.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from pipeline.backend import has_bfloat16
from pipeline.errors import UserError

AUTO = "auto"
DTYPE = "network.dtype"
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
"""Any count: of epochs, images per batch, processes."""
Fraction = Annotated[float, Meta(ge=0, lt=1)]
ImageSide = Annotated[int, Meta(ge=32, le=1024)]
"""Pixels; smaller images were not tried."""
LearningRate = Annotated[float, Meta(ge=1e-12, le=1000)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Mean = Annotated[float, Meta(ge=0, le=255)]
"""Of one colour channel of the train images."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What ``googlenet`` builds (see pipeline/nn/googlenet.py)."""

    stem: Literal["paper", "fine"] = "paper"
    """``"paper"``: 7x7 stride 2; ``"fine"``: 5x5 stride 1, for feature maps of twice the size."""
    width: Annotated[float, Meta(gt=0, le=16)] = 1.0
    """Multiplies every filter count of Table 1."""
    relu_before_norm: bool = False
    """Convolution, ReLU, batch norm instead of convolution, batch norm, ReLU."""
    l2: Fraction = 0.0
    """Added to the loss: this times the sum of the squares of all kernels, not of biases."""
    stage_dropout: Fraction = 0.0
    """Dropout rate after stages 3 and 4, behind the max pooling that follows, and after 5."""
    dropout: Fraction = 0.4
    """Dropout rate before the classifier (the paper: 0.4)."""
    norm_momentum: Fraction = 0.99
    """Of batch norm, by Keras's convention: the weight of the old running statistics (PyTorch's
    momentum is 1 minus this)."""
    precise_norm: bool = False
    """PreciseBN: after each epoch, measure the running statistics on train images."""
    dtype: Literal["float32", "mixed_bfloat16", "auto"] = "float32"
    """``"mixed_bfloat16"`` computes in bfloat16 and keeps the weights, the mean subtraction, the
    classifier and its softmax in float32; ``"auto"`` does so where the device computes in
    bfloat16: ``Recipe.for_this_machine`` decides."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimizer and its learning rate (see pipeline/nn/optimizers.py)."""

    name: Literal["adam", "muon", "sgd"] = "sgd"
    """``"sgd"``, with Nesterov momentum; ``"muon"``, its steps made orthogonal (see muon.py);
    ``"adam"``, with Keras's defaults."""
    momentum: Fraction = 0.9
    """For SGD and Muon."""
    learning_rate: LearningRate = 0.1
    """The first rate, or with a warm-up the highest."""
    rate_drops: tuple[tuple[Count, LearningRate], ...] = ()
    """(first epoch, rate) of each later rate. Empty: the rate falls to zero by ``schedule``."""
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_epochs: Annotated[float, Meta(ge=0)] = 0.0
    """The rate rises linearly from zero over these; cosine only."""
    weight_decay: Fraction = 0.0
    """Decoupled (arXiv:1711.05101): each step takes rate x this x weight off a kernel. With
    momentum 0.9, about ten times the value that PyTorch's SGD adds to the gradient."""
    label_smoothing: Fraction = 0.0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are changed (see pipeline/preprocessing). The default: not at all."""

    rotation: Annotated[float, Meta(ge=0, le=180)] = 0.0
    """Degrees, to either side."""
    shift: Fraction = 0.0
    """Fraction of the side, in each direction."""
    shear: Annotated[float, Meta(ge=0, lt=90)] = 0.0
    """Degrees, to either side."""
    zoom: Fraction = 0.0
    """Each axis is scaled by 1 - zoom to 1 + zoom."""
    flip: Literal["none", "random", "alternating"] = "none"
    """``"random"``: mirror half the images, drawn anew each epoch; ``"alternating"``: mirror each
    image every other epoch, starting at random (arXiv:2404.00498)."""
    trivial_augment: bool = False
    """One more operation per image, its type and strength drawn uniformly (trivial_augment.py)."""
    cutmix: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """CutMix's alpha: lambda, the fraction of area and label that an image keeps, is drawn from
    Beta(alpha, alpha); 0: no CutMix."""
    mixed_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Probability that CutMix changes a batch."""
    mixed_from: Count = 1
    """CutMix's first epoch: it helps once a network overfits."""

    def in_epoch(self, epoch: int) -> "Augmentation":
        """Return what is done in an epoch, from 1."""
        return self if epoch >= self.mixed_from else replace(self, cutmix=0.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is built, fed and trained. Epochs count from 1."""

    epochs: Count
    batch_size: Count
    image_sizes: Annotated[tuple[tuple[Count, ImageSide], ...], Meta(min_length=1)] = ((1, 64),)
    """Progressive resizing: (first epoch, image size in pixels), in order; small ones cost less."""
    evaluation_size: ImageSide | None = None
    """The image size to evaluate and predict at, from the last size's first epoch on (FixRes,
    arXiv:1906.06423); None: as in training. Choose it by val. PreciseBN measures at it too."""
    network: Network = field(default_factory=Network)
    optimizer: Optimizer = field(default_factory=Optimizer)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def check(self) -> None:
        """Check that the values are consistent; each value's range is checked by its type.

        Raises:
            ValueError: Some are not; says which.
        """
        if self.image_sizes[0][0] != 1:
            raise ValueError("image_sizes must begin with epoch 1")
        for name, pairs in (("image_sizes", self.image_sizes),
                            ("rate_drops", self.optimizer.rate_drops)):  # fmt: skip
            if any(first[0] >= second[0] for first, second in itertools.pairwise(pairs)):
                raise ValueError(f"the epochs of {name} must rise")
        if self.optimizer.name == "muon" and not self.optimizer.momentum:
            raise ValueError("muon needs a momentum above 0")
        if self.optimizer.warmup_epochs and (
            self.optimizer.rate_drops or self.optimizer.schedule != "cosine"
        ):
            raise ValueError("warmup_epochs go with the cosine schedule alone, without rate_drops")
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ValueError("warmup_epochs must be below epochs, so that the rate can decay")

    def image_size(self, epoch: int) -> int:
        """Return the image size of ``epoch``, in pixels."""
        return [size for first, size in self.image_sizes if first <= epoch][-1]

    def size_to_evaluate(self, epoch: int) -> int:
        """Return the image size that the network is evaluated at after ``epoch``, in pixels."""
        last = epoch >= self.image_sizes[-1][0]
        return self.evaluation_size if last and self.evaluation_size else self.image_size(epoch)

    def phases(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the (first, last) epochs of each phase, a stretch with one image size."""
        starts = [start for start, _ in self.image_sizes if first < start <= last]
        for begin, following in itertools.pairwise([first, *starts, last + 1]):
            yield begin, following - 1

    def for_this_machine(self) -> "Recipe":
        """Return the recipe with ``"auto"`` resolved for this machine; imports the backend."""
        if self.network.dtype != AUTO:
            return self
        return self.replaced({DTYPE: "mixed_bfloat16" if has_bfloat16() else "float32"})

    def replaced(self, values: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with other ``values``, by names such as ``network.dropout``."""
        recipe = self
        for name, value in values.items():
            part, _, key = name.rpartition(".")
            if part:
                key, value = part, replace(getattr(recipe, part), **{key: value})
            recipe = replace(recipe, **{key: value})
        return recipe

    def differences(self, other: "Recipe") -> list[str]:
        """Return the values that differ in ``other``, as ``part.field ours, now theirs``.

        An ``"auto"`` of ``other`` agrees with anything: a run resumes as it began.
        """
        if other.network.dtype == AUTO:
            other = other.replaced({DTYPE: self.network.dtype})
        pairs = zip(_flat(self).items(), _flat(other).values(), strict=True)
        return [f"{name} {ours}, now {theirs}" for (name, ours), theirs in pairs if ours != theirs]


def check_settings(settings: Mapping[str, Any]) -> None:
    """Check a module's values by the types and ranges that it declares for them.

    Raises:
        ValueError: One has the wrong type, is out of range, or names no recipe; says which.
    """
    for name in (*settings["__annotations__"], "RECIPES"):
        if name not in settings:
            raise ValueError(f"{name} has no value")
    for name, kind in settings["__annotations__"].items():
        try:
            value = msgspec.convert(settings[name], kind)
        except msgspec.ValidationError as error:
            raise ValueError(f"{name} is {settings[name]!r}: {error}") from error
        named = value if name.endswith("_RECIPES") else [value] if name.endswith("_RECIPE") else []
        for recipe in named:
            if recipe not in settings["RECIPES"]:
                raise ValueError(f"{name} is {value!r}, and RECIPES has no {recipe!r}")


def explain_missing_setting(name: str) -> NoReturn:
    """Explain a missing setting: a settings module's ``__getattr__`` (PEP 562).

    Raises:
        UserError: The name is in capitals, as settings are.
        AttributeError: It is not.
    """
    if name.isupper():
        raise UserError(f"config/setup_config.py has no {name}; put it back")
    raise AttributeError(f"the settings have no attribute {name!r}")


def choose_recipe(recipes: Mapping[str, Recipe], name: str) -> Recipe:
    """Return the recipe of that name, checked.

    Raises:
        UserError: A value of it is of another type than its field, out of range, or unknown.
    """
    try:
        recipe = msgspec.convert(msgspec.to_builtins(recipes[name]), Recipe)
        recipe.check()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"recipe {name!r} in config/setup_config.py: {error}; "
            "pipeline/recipe.py says what its values may be"
        ) from error
    return recipe


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Return all values, each by its name, as ``network.dropout``."""
    flat = asdict(recipe)  # msgspec would leave out what an older record lacks
    for part in ("network", "optimizer", "augmentation"):
        flat |= {f"{part}.{name}": value for name, value in flat.pop(part).items()}
    return flat
