"""Turn a Tiny ImageNet source into three HDF5 files and the channel means."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.dataset.decoding import decode_in_order, find_undecodable
from pipeline.dataset.image_source import ImageSource
from pipeline.dataset.tiny_imagenet import LabelledImage, draw_test_split, read_labelled_images
from pipeline.errors import UserError
from pipeline.io.files import atomic_writes, folder_lock, remove_unfinished
from pipeline.io.hdf5_writer import HDF5Writer
from pipeline.progress import progress_bar

MEANS = "tiny_imagenet_mean.json"
OUTPUTS = ("train.hdf5", "val.hdf5", "test.hdf5", MEANS)
ADVICE = "fetch the data set again, or leave such images out with --skip-corrupt"


@dataclass(frozen=True)
class BuildReport:
    """What was built."""

    classes: int
    images: dict[str, int]
    """Images in each split."""
    skipped: dict[str, str]
    """Why each image that was left out could not be decoded."""


def build_data_set(
    source: ImageSource,
    output: Path,
    *,
    image_size: int,
    test_images_per_class: int,
    seed: int,
    overwrite: bool = False,
    skip_corrupt: bool = False,
) -> BuildReport:
    """Write ``train.hdf5``, ``val.hdf5``, ``test.hdf5`` and the train split's means to ``output``.

    The files get their names one right after the other once all are complete and on the disk;
    until then an earlier build stays.

    Args:
        source: Where the images are read from.
        output: A folder, made as needed.
        image_size: Pixels a side; other images are resized.
        test_images_per_class: Train images of each class that become the test split.
        seed: Draws them.
        overwrite: Replace an earlier build.
        skip_corrupt: Leave out images that cannot be decoded, before anything is drawn.

    Raises:
        UserError: The source is not Tiny ImageNet, an image is corrupt, or the output is taken
            or cannot be written.
    """
    found = read_labelled_images(source)
    with folder_lock(output):
        remove_unfinished(output)
        _refuse_earlier_build(output, overwrite)
        corrupt = dict(find_undecodable(source, [*found.train, *found.val])) if skip_corrupt else {}
        train, test = draw_test_split(
            [image for image in found.train if image not in corrupt],
            found.class_ids,
            test_images_per_class,
            seed,
        )
        val = [image for image in found.val if image not in corrupt]
        if not val:
            raise UserError("no val image can be decoded; fetch the data set again")
        splits = {"train": train, "val": val, "test": test}
        with atomic_writes(output / name for name in OUTPUTS) as unfinished:
            paths = dict(zip(OUTPUTS, unfinished, strict=True))
            for split, images in splits.items():
                writer = HDF5Writer(
                    paths[f"{split}.hdf5"],
                    count=len(images),
                    image_size=image_size,
                    class_ids=found.class_ids,
                    class_names=found.class_names,
                    split=split,
                    seed=seed,
                )
                means = _write_split(writer, source, images, split, image_size)
                if split == "train":
                    paths[MEANS].write_text(json.dumps(means, indent=2) + "\n")
    return BuildReport(
        classes=len(found.class_ids),
        images={split: len(images) for split, images in splits.items()},
        skipped={image.name: reason for image, reason in corrupt.items()},
    )


def is_built(folder: Path) -> bool:
    """Tell whether ``folder`` holds all files of a build."""
    return all((folder / name).is_file() for name in OUTPUTS)


def read_means(folder: Path) -> tuple[float, float, float]:
    """Return the R, G and B means of the train split built in ``folder``, 0 to 255.

    Raises:
        UserError: They are missing or damaged.
    """
    path = folder / MEANS
    try:
        means = json.loads(path.read_text())
        red, green, blue = (float(means[channel]) for channel in "RGB")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is missing or damaged; build it again with build_dataset.py --overwrite"
        ) from error
    return red, green, blue


def _refuse_earlier_build(output: Path, overwrite: bool) -> None:
    present = [output / name for name in OUTPUTS if (output / name).exists()]
    if present and not overwrite:
        raise UserError(f"{present[0]} is there already; give --overwrite to replace the build")


def _write_split(
    writer: HDF5Writer,
    source: ImageSource,
    images: Sequence[LabelledImage],
    split: str,
    image_size: int,
) -> dict[str, float]:
    """Decode the images into the file; return the mean of each channel, 0 to 255."""
    sums = np.zeros(3)
    with writer, progress_bar(split, len(images)) as bar:
        for chunk in decode_in_order(source, images, image_size, ADVICE):
            writer.append(chunk.images, chunk.labels, chunk.sources)
            sums += chunk.channel_sums
            bar.increment(len(chunk.labels))
    return dict(zip("RGB", sums / (len(images) * image_size**2), strict=True))
