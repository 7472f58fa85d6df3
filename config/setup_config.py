"""Every path, size and hyperparameter a user may want to change, and nothing else.

``pipeline/recipe.py`` says what each value of a recipe means, its range and its default. The type
after a name, such as ``Count``, is what ``config/__init__.py`` checks its value against.
"""

from dataclasses import replace
from pathlib import Path

from pipeline.recipe import Augmentation, Count, ImageSide, Network, Optimizer, Recipe, Seed

# Where things are

DATASET: Path = Path("tiny-imagenet-200")
"""The unpacked data set; the .zip of the same name beside it is read where there is no folder, or
where only the zip is built."""
SAMPLE: Path = Path("digits")
"""Where ``build_dataset.py --sample`` writes the small data set."""
OUTPUT: Path = Path("outs")
RELEASED_MODEL: Path = Path(__file__).resolve().parent.parent / "outs/googlenet-tiny-imagenet.keras"
DIAGRAM: Path = OUTPUT / "network.png"
"""Not googlenet.png, which is README's picture."""
REPORT: Path = OUTPUT / "report"

# The official archive

DOWNLOAD_URL: str = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
DOWNLOAD_BYTES: int = 248_100_043
DOWNLOAD_MD5: str = "90528d7ca1a48142e341f4ef8d21d0de"

# The data set

IMAGE_SIZE: ImageSide = 64
"""In pixels, as stored; a recipe's ``image_sizes`` say what is trained on."""
CLASSES: Count = 200
"""Only for ``view_model.py`` without -m; all else takes those of the data."""
TEST_IMAGES_PER_CLASS: Count = 30
"""The official test images have no labels: this many train images per class take their place."""
SEED: Seed = 42

EVALUATION_BATCH_SIZE: Count = 100
"""For ``model_eval.py``; training validates with the run's batch size."""

PATIENCE: Count = 5
"""Epochs at one rate without a lower val loss, after which training recommends a lower rate."""

# How networks are trained

# What two CPU cores can do in 1¼ to 2½ hours: smaller images first.
QUICK = Recipe(
    epochs=16,
    batch_size=384,
    image_sizes=((1, 32), (11, 48), (14, 64)),
    network=Network(
        stem="fine",
        dropout=0.1,
        norm_momentum=0.9,
        precise_norm=True,
        dtype="auto",
    ),
    optimizer=Optimizer(
        name="muon",
        learning_rate=0.05,
        schedule="linear",
        weight_decay=0.02,
        label_smoothing=0.1,
    ),
    augmentation=Augmentation(
        shift=0.1,
        zoom=0.2,
        flip="alternating",
        trivial_augment=True,
    ),
)
# What two CPU cores can do in a night, four to nine hours: ``quick`` for longer, with more weight
# decay, and with CutMix from epoch 17 on.
OVERNIGHT = replace(
    QUICK,
    epochs=47,
    image_sizes=((1, 32), (17, 48), (35, 64)),
    optimizer=replace(QUICK.optimizer, weight_decay=0.03),
    augmentation=replace(QUICK.augmentation, cutmix=1.0, mixed_share=0.5, mixed_from=17),
)
RECIPES = {
    # The published procedure, whose author lowered the rate by hand after epochs 26, 40 and 52.
    "published": Recipe(
        epochs=60,
        batch_size=64,
        network=Network(
            stem="paper",
            relu_before_norm=True,
            l2=5e-4,
            stage_dropout=0.25,
            dropout=0.38,
        ),
        optimizer=Optimizer(
            name="adam",
            learning_rate=1e-3,
            rate_drops=((27, 1e-4), (41, 1e-5), (53, 1e-6)),
        ),
        augmentation=Augmentation(
            rotation=30,
            shift=0.2,
            shear=0.2,
            zoom=0.2,
            flip="random",
        ),
    ),
    "quick": QUICK,
    "overnight": OVERNIGHT,
    # One GPU, in minutes: ``overnight`` for longer, at the full size, larger batches, more dropout.
    "best": replace(
        OVERNIGHT,
        epochs=66,
        batch_size=500,
        image_sizes=((1, 64),),
        network=replace(OVERNIGHT.network, dropout=0.2),
    ),
    # Thin and small, for the digits sample and the tests.
    "demo": Recipe(
        epochs=10,
        batch_size=32,
        image_sizes=((1, 32),),
        network=Network(
            width=0.25,
            dropout=0.0,
            norm_momentum=0.9,
            precise_norm=True,
        ),
        optimizer=Optimizer(
            learning_rate=0.05,
            warmup_epochs=1,
            weight_decay=5e-3,
        ),
        augmentation=Augmentation(
            rotation=10,
            shift=0.1,
        ),
    ),
}
DEFAULT_RECIPE: str = "published"
"""What this project reproduces."""
SUGGESTED_RECIPE: str = "quick"
"""What ``build_dataset.py`` proposes to train with: more accurate, faster, and without a GPU."""
SAMPLE_RECIPE: str = "demo"
"""What ``build_dataset.py`` proposes for the sample."""
CPU_RECIPES: tuple[str, ...] = ("quick", "overnight", "demo")
"""On a CPU, a run of another recipe that takes over six hours recommends ``SUGGESTED_RECIPE``."""
