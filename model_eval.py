#!/usr/bin/env python3
"""Measure a trained model on a split, or name photographs by it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, number, quote, run_script, shell_command
from pipeline.errors import UserError
from pipeline.printing import say
from pipeline.recipe import LARGEST_IMAGE, MOST, SMALLEST_IMAGE

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import Predictor, Scores
    from pipeline.io.hdf5_dataset import HDF5Dataset
    from pipeline.run.state import RunState


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        "python model_eval.py -m outs/quick --split val\n"
        "  python model_eval.py -m outs/quick --report outs/report\n"
        "  python model_eval.py --images holiday.jpg album/ --sheet outs/album.png",
    )

    def add(*flags: str, **options: object) -> None:
        parser.add_argument(*flags, **options)

    add("-m", "--model", type=Path, metavar="FILE", default=config.RELEASED_MODEL,
        help="a checkpoint, or a run's folder, whose best epoch by val is taken")  # fmt: skip
    add("--split", choices=("test", "val", "train"), default="test",
        help="choose between models by val, and read test once")  # fmt: skip
    add("--flip", action="store_true", help="average with the predictions for mirrored images")
    add("--image-size", type=number(int, SMALLEST_IMAGE, LARGEST_IMAGE), metavar="N",
        help="pixels a side to predict at (default: the recipe's); --export keeps it")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="write the numbers here too")
    add("--export", type=Path, metavar="FILE",
        help="write the model alone, its kernels in float16, to pass on")  # fmt: skip
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--report", type=Path, metavar="DIR",
        help="write report.html, its figures and tables here")  # fmt: skip
    instead.add_argument("--images", type=Path, nargs="+", metavar="FILE",
        help="name these photographs, or all in a folder, instead of measuring")  # fmt: skip
    add("--csv", type=Path, metavar="FILE",
        help="with --images: write their five best classes here, a row an image")  # fmt: skip
    add("--sheet", type=Path, metavar="FILE",
        help="with --images: draw them here, with their five best classes")  # fmt: skip
    add("--hdf5", type=Path, metavar="DIR",
        help="what build_dataset.py wrote (default: what the model was trained on, "
        "or where it writes by default)")  # fmt: skip
    add("-b", "--batch-size", type=number(int, 1, MOST), metavar="N",
        default=config.EVALUATION_BATCH_SIZE, help="images at a time")  # fmt: skip
    args = parser.parse_args(argv)
    if args.csv and not args.images:
        parser.error("--csv goes with --images; a measurement's table is part of --report")
    if args.sheet and not args.images:
        parser.error("--sheet goes with --images")
    if args.export and args.images:
        parser.error("--export goes with a measurement, which says what is passed on")
    if args.export and args.export.suffix != ".keras":
        parser.error("--export writes a file whose name ends in .keras")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Do as the command line says."""
    args = parse_arguments(argv)
    from pipeline.io.files import check_outputs
    from pipeline.run.checkpoint import read_state
    from pipeline.run.output_folder import checkpoint_to_evaluate

    given, args.model = args.model, checkpoint_to_evaluate(args.model)
    if args.model != given:
        say(f"best epoch by val rank-1: {args.model}")
    state = read_state(args.model)
    check_outputs(outputs(args), inputs(args))
    if args.image_size:
        state = state.evaluated_at(args.image_size)
    if args.images:
        name_images(args, state)
    else:
        measure(args, state)
    print_next(args, given)


def outputs(args: argparse.Namespace) -> list[Path]:
    """Return the files to write, but for the report's."""
    return [path for path in (args.json, args.export, args.csv, args.sheet) if path]


def inputs(args: argparse.Namespace) -> list[Path]:
    """Return what is read or could be in the next run, but for photographs."""
    from pipeline.dataset.builder import OUTPUTS
    from pipeline.run.output_folder import LOG, list_checkpoints

    run, data = args.model.parent, hdf5_folder(args)
    return [args.model, *list_checkpoints(run), run / LOG, *(data / name for name in OUTPUTS)]


def measure(args: argparse.Namespace, state: "RunState") -> None:
    """Print rank-1 and rank-5 over every image of a split; write the report if asked for."""
    from pipeline.io.files import write_json
    from pipeline.io.hdf5_dataset import open_split
    from pipeline.run.start import check_classes

    dataset = open_split(hdf5_folder(args), args.split)
    check_classes(state, dataset)
    warn_of_seen_images(state, dataset)

    import_keras()
    import numpy as np

    from pipeline.evaluation.metrics import predict_batches, score
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.checkpoint import export

    predictor = load_predictor(args, state)
    with HDF5Generator(dataset, args.batch_size) as data:
        data.begin_epoch(1, state.image_size)
        predicted = predict_batches(predictor, data)
        if args.report:
            predicted = list(predicted)
        scores = score(predicted)

    say(f"Rank-1: {scores.rank1:.2%}  Rank-5: {scores.rank5:.2%}  ({scores.images} images)")
    if args.json:
        write_json(args.json, numbers(args, state, scores))
        say(f"wrote {args.json}")
    if args.export:
        export(args.model, args.export, state)
        say(f"wrote {args.export}")
    if args.report:
        from pipeline.evaluation.report import OUTPUTS, Report

        probabilities = np.concatenate([batch for batch, _ in predicted])
        Report(dataset, probabilities).write(args.report, facts(args, state))
        say(f"wrote {', '.join(OUTPUTS)} to {args.report}")


def hdf5_folder(args: argparse.Namespace) -> Path:
    """Return where the data lies."""
    from pipeline.run.output_folder import find_hdf5

    return find_hdf5(args.hdf5, args.model, config.DATASET)


def load_predictor(args: argparse.Namespace, state: "RunState") -> "Predictor":
    """Return the model as it is to predict: in what batches, at what size, and mirrored or not."""
    from pipeline.evaluation.metrics import Predictor
    from pipeline.run.checkpoint import load_model

    return Predictor(load_model(args.model), args.batch_size, state.image_size, args.flip)


def print_next(args: argparse.Namespace, model: Path) -> None:
    """Say what to do next with ``model``, as it was given."""
    if args.report:
        from pipeline.evaluation.report import PAGE

        say(f"next: open {quote(args.report / PAGE)} in a browser")
    elif args.images and (hdf5_folder(args) / "test.hdf5").is_file():
        flags = {"-m": model, "--report": config.REPORT, "--hdf5": args.hdf5}
        say(f"next: {shell_command('model_eval.py', flags)}")
    else:
        say(f"next: {shell_command('view_model.py', {'-m': model})}")


def numbers(args: argparse.Namespace, state: "RunState", scores: "Scores") -> dict[str, object]:
    """Return what --json writes of a measurement."""
    return {
        "rank1": scores.rank1,
        "rank5": scores.rank5,
        "images": scores.images,
        "split": args.split,
        "flip": args.flip,
        "model": str(args.model),
        "epoch": state.epoch,
        "image_size": state.image_size,
        "loss": scores.loss,
    }


def facts(args: argparse.Namespace, state: "RunState") -> dict[str, str]:
    """Return what heads the report: what was measured, and how."""
    return {
        "model": args.model.name,
        "trained": f"recipe {state.recipe_name}, {state.epoch} epochs, seed {state.seed}",
        "classes": f"{len(state.classes)}",
        "predictions": "averaged with those for mirrored images" if args.flip else "one an image",
    }


def name_images(args: argparse.Namespace, state: "RunState") -> None:
    """Print the five most probable classes of each of a person's own images."""
    from pipeline.io.files import check_outputs
    from pipeline.plotting.style import check_figure_format
    from pipeline.preprocessing.photographs import find_photographs

    paths = find_photographs(args.images)
    check_outputs(outputs(args), paths)
    if args.sheet:
        check_figure_format(args.sheet)
    import_keras()
    from pipeline.evaluation.metrics import prediction_table
    from pipeline.evaluation.photos import name_photographs, prediction_records
    from pipeline.evaluation.sheet import write_sheet
    from pipeline.io.files import atomic_write, write_csv, write_json

    def refuse(path: Path, error: UserError) -> None:
        if path in args.images:
            raise error
        say(f"skipped: {error}", error=True)

    named = []
    for photo in name_photographs(load_predictor(args, state), paths, state.classes, refuse):
        say(photo.path)
        for predicted in photo.predictions:
            names = dict.fromkeys((predicted.class_id, predicted.words))  # one where they are equal
            say(f"  {predicted.probability:6.1%}  {'  '.join(names)}")
        named.append(photo)
    if not named:
        raise UserError(f"none of {len(paths)} images could be read; name others")
    if args.json:
        write_json(args.json, prediction_records(named))
        say(f"wrote {args.json}")
    if args.csv:
        with atomic_write(args.csv) as unfinished:
            columns = {"image": [photo.path for photo in named]}
            predictions = [photo.predictions for photo in named]
            write_csv(unfinished, prediction_table(columns, predictions))
        say(f"wrote {args.csv}")
    if args.sheet:
        write_sheet(args.sheet, named)
        say(f"wrote {args.sheet}")


def warn_of_seen_images(state: "RunState", dataset: "HDF5Dataset") -> None:
    """Warn where the test split was drawn with another seed than the one trained beside."""
    if dataset.split == "test" and dataset.seed != state.data_seed:
        say(
            f"warning: this test split was drawn with seed {dataset.seed}, and the model was "
            f"trained beside that of seed {state.data_seed}: it has seen most of these images",
            error=True,
        )


if __name__ == "__main__":
    run_script(main)
