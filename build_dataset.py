#!/usr/bin/env python3
"""Build train.hdf5, val.hdf5 and test.hdf5, and store the channel means of the train split."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, number, run_script, shell_command
from pipeline.errors import UserError
from pipeline.printing import say
from pipeline.recipe import Recipe, Seed, choose_recipe

if TYPE_CHECKING:
    from pipeline.dataset.builder import BuildSettings

MIN_STEPS, SMALL_BATCH = 20, 32
"""With fewer steps per epoch, ``training_command`` proposes batches of the latter size."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        "python build_dataset.py --download\n"
        "  python build_dataset.py -d my-pictures --preview sheet.png",
    )
    add = parser.add_argument
    add("-d", "--dataset", type=Path, metavar="PATH",
        help="folder or .zip of Tiny ImageNet, or of your own train/CLASS/* (default: "
        f"{config.DATASET}, folder or .zip; with --sample: {config.SAMPLE})")  # fmt: skip
    add("-o", "--output", type=Path, metavar="DIR",
        help="where to write (default: hdf5/ in the data set's folder, or beside "
        "its zip)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace an earlier build")
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--download", action="store_true", help="first fetch the official .zip")
    first.add_argument("--sample", action="store_true", help="first write a sample, of digits")
    add("--skip-corrupt", action="store_true", help="leave out damaged images")
    add("--draw-val", action="store_true",
        help="draw val from train if Tiny ImageNet has no val")  # fmt: skip
    add("--seed", type=number(Seed), default=config.SEED, metavar="N",
        help="fixes which images become test or val, where those are drawn")  # fmt: skip
    add("--preview", type=Path, metavar="FILE",
        help="draw some images, stored and augmented, to FILE; reuses a build")  # fmt: skip
    add("-r", "--recipe", choices=config.RECIPES, metavar="NAME",
        help="the recipe whose augmentation --preview shows (default: "
        f"{config.SUGGESTED_RECIPE}; with --sample: {config.SAMPLE_RECIPE})")  # fmt: skip
    args = parser.parse_args(argv)
    if args.recipe and not args.preview:
        parser.error("-r needs --preview: it names the recipe whose augmentation is shown")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Build the data set, and draw the preview if asked for."""
    args = parse_arguments(argv)
    # Imported where they are used, so that --help and usage errors are instant.
    from pipeline.dataset.builder import BuildSettings, check_built, is_built
    from pipeline.dataset.image_source import open_source
    from pipeline.dataset.tiny_imagenet import default_hdf5_folder

    if args.preview:
        from pipeline.plotting import picture_format

        picture_format(args.preview)
    recipe_name = args.recipe or (config.SAMPLE_RECIPE if args.sample else config.SUGGESTED_RECIPE)
    recipe = choose_recipe(config.RECIPES, recipe_name)  # an invalid one fails before the build
    settings = BuildSettings(
        image_size=config.IMAGE_SIZE,
        test_images_per_class=config.TEST_IMAGES_PER_CLASS,
        seed=args.seed,
        skip_corrupt=args.skip_corrupt,
        draw_val=args.draw_val,
    )
    data_set = prepare_data_set(args)
    output = args.output or default_hdf5_folder(data_set)
    check_output_paths(args, data_set, output)
    if is_built(output) and not args.overwrite:
        if args.dataset or args.sample or args.download or not args.preview:
            check_built(open_source(data_set), output, settings)
        say(f"{output} is built already, and stays as it is; --overwrite builds it again")
    else:
        build(data_set, output, settings, args.overwrite)
    if args.preview:
        draw_preview(args, output, recipe_name, recipe)
    say(f"next: {training_command(output, recipe_name)}")


def prepare_data_set(args: argparse.Namespace) -> Path:
    """Return the data set's path; download or write it first if asked for."""
    from pipeline.dataset.tiny_imagenet import find_data_set

    if args.sample:
        from pipeline.dataset.digits_sample import write_sample

        data_set = args.dataset or config.SAMPLE
        write_sample(data_set, config.IMAGE_SIZE, config.SEED)
        return data_set
    if args.download:
        from pipeline.dataset.download import download

        data_set = args.dataset or config.DATASET
        if not data_set.name:
            raise UserError(f"--download needs the name of a file, not {data_set}; give it with -d")
        archive = data_set.with_name(f"{data_set.name.removesuffix('.zip')}.zip")
        download(config.DOWNLOAD_URL, archive, config.DOWNLOAD_BYTES, config.DOWNLOAD_MD5)
        return archive
    return args.dataset or find_data_set(config.DATASET)


def check_output_paths(args: argparse.Namespace, data_set: Path, hdf5: Path) -> None:
    """Refuse to overwrite inputs, or to write among the images."""
    from pipeline.dataset.builder import OUTPUTS
    from pipeline.dataset.tiny_imagenet import SPLITS
    from pipeline.io.files import check_outputs

    root = os.path.realpath(data_set)  # Path.resolve refuses links to themselves
    split_folders = [os.path.realpath(data_set / split) for split in SPLITS]  # may be links
    for path in filter(None, (args.output, args.preview)):
        place = Path(os.path.realpath(path))
        inner = place.relative_to(root).parts if place.is_relative_to(root) else ()
        in_split = any(part.casefold() in SPLITS for part in inner)
        if in_split or any(map(place.is_relative_to, split_folders)):
            raise UserError(f"{path} lies among the images of {data_set}; name another place")
    if args.preview:
        check_outputs([args.preview], [data_set, *(hdf5 / name for name in OUTPUTS)])


def build(data_set: Path, output: Path, settings: "BuildSettings", overwrite: bool) -> None:
    """Write the HDF5 files, and say what was written."""
    from pipeline.dataset.builder import OUTPUTS, build_data_set
    from pipeline.dataset.image_source import open_source

    started = time.perf_counter()
    report = build_data_set(open_source(data_set), output, settings, overwrite=overwrite)
    seconds = time.perf_counter() - started
    say(*report.notes)
    for name, reason in report.skipped.items():
        say(f"skipped {name}: {reason}", error=True)
    if report.skipped:
        say(f"skipped {len(report.skipped)} corrupt images, named on stderr")
    counts = ", ".join(f"{count:,} {split}" for split, count in report.images.items())
    say(f"{report.classes} classes: {counts} images in {seconds:.1f} s")
    say(f"wrote {', '.join(OUTPUTS)} to {output}")


def draw_preview(args: argparse.Namespace, hdf5: Path, recipe_name: str, recipe: Recipe) -> None:
    """Draw some images, stored and augmented."""
    import_keras()
    from pipeline.io.hdf5_dataset import open_training_splits
    from pipeline.plotting.preview import write_preview
    from pipeline.run.start import fresh_run

    train, val = open_training_splits(hdf5)
    state = fresh_run(recipe_name, recipe, args.seed, train, val)
    write_preview(args.preview, train, state)
    say(f"wrote {args.preview}")


def training_command(hdf5: Path, recipe_name: str) -> str:
    """Return the command that trains on what was built."""
    from pipeline.dataset.tiny_imagenet import default_hdf5_folder, find_data_set
    from pipeline.io.hdf5_dataset import open_split
    from pipeline.run.output_folder import unused_path

    is_default = hdf5 == default_hdf5_folder(find_data_set(config.DATASET))
    flags = {"-r": recipe_name, "--hdf5": None if is_default else hdf5,
             "-o": unused_path(config.OUTPUT / recipe_name)}  # fmt: skip
    images = len(open_split(hdf5, "train"))
    if images < MIN_STEPS * config.RECIPES[recipe_name].batch_size:
        flags["-b"] = min(SMALL_BATCH, images)
    return shell_command("model_train.py", flags)


if __name__ == "__main__":
    run_script(main)
