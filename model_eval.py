#!/usr/bin/env python3
"""Evaluate a trained model on a split, or classify photographs."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, number, quote, run_script, shell_command
from pipeline.errors import UserError
from pipeline.evaluation import REPORT_FILES, REPORT_PAGE
from pipeline.printing import say
from pipeline.recipe import Count, ImageSide

if TYPE_CHECKING:
    from pipeline.evaluation.metrics import Predictor
    from pipeline.evaluation.report import Report
    from pipeline.run.state import RunState


SEEN = "the model was trained on another build, and may have seen some of these images"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__,
        "python model_eval.py -m outs/quick --split val\n"
        "  python model_eval.py -m outs/quick --report outs/report\n"
        "  python model_eval.py --images holiday.jpg album/ --sheet outs/album.png",
    )
    add = parser.add_argument
    add("-m", "--model", type=Path, metavar="PATH", default=config.RELEASED_MODEL,
        help="a checkpoint, or a run's folder, whose best epoch by val is taken")  # fmt: skip
    add("--split", choices=("test", "val", "train"), default="test",
        help="the split to evaluate: val to select models, test once")  # fmt: skip
    add(
        "--flip",
        action="store_true",
        help="test-time augmentation: average with the predictions for mirrored images",
    )
    add("--image-size", type=number(ImageSide), metavar="N",
        help="image size in pixels (default: the recipe's); stored by --export")  # fmt: skip
    add("--json", type=Path, metavar="FILE",
        help="write the metrics here too; with --images, the predictions")  # fmt: skip
    add("--export", type=Path, metavar="FILE",
        help="after evaluating, write the model: no optimizer state, float16 kernels")  # fmt: skip
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--report", type=Path, metavar="DIR",
        help="write report.html, its figures and tables here")  # fmt: skip
    instead.add_argument("--images", type=Path, nargs="+", metavar="PATH",
        help="classify these photographs, or all in a folder, instead of evaluating")  # fmt: skip
    add("--csv", type=Path, metavar="FILE",
        help="with --images: write their top-5 classes here, one row per image")  # fmt: skip
    add("--sheet", type=Path, metavar="FILE",
        help="with --images: draw them here, with their five best classes")  # fmt: skip
    add("--hdf5", type=Path, metavar="DIR",
        help="what build_dataset.py wrote (default: what the model was trained on, "
        "or where it writes by default)")  # fmt: skip
    add("-b", "--batch-size", type=number(Count), metavar="N",
        default=config.EVALUATION_BATCH_SIZE, help="images at a time")  # fmt: skip
    args = parser.parse_args(argv)
    if (args.csv or args.sheet) and not args.images:
        parser.error("--csv and --sheet go with --images; for a split, use --report")
    if args.export and args.images:
        parser.error("--export cannot be combined with --images")
    if args.export and args.export.suffix != ".keras":
        parser.error("--export writes a file whose name ends in .keras")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Do as the command line says."""
    args = parse_arguments(argv)
    # Imported where they are used, so that --help and usage errors are instant.
    from pipeline.io.photographs import find_photographs
    from pipeline.run.checkpoint import read_state
    from pipeline.run.output_folder import checkpoint_to_evaluate, find_hdf5

    args.checkpoint = checkpoint_to_evaluate(args.model)
    state = read_state(args.checkpoint)
    if args.image_size:
        state = state.evaluated_at(args.image_size)
    hdf5 = find_hdf5(args.hdf5, args.checkpoint, config.DATASET)
    photographs = find_photographs(args.images or ())
    check_output_paths(args, hdf5, photographs)
    if args.images:
        classify(args, state, photographs)
    else:
        evaluate(args, state, hdf5)
    print_next(args, hdf5)


def check_output_paths(args: argparse.Namespace, hdf5: Path, photographs: Sequence[Path]) -> None:
    """Refuse to write over the run, the data or the photographs."""
    from pipeline.dataset.builder import OUTPUTS
    from pipeline.io.files import check_outputs
    from pipeline.run.output_folder import NAME, files_of_run

    if args.export and NAME.fullmatch(args.export.name):
        raise UserError(f"{args.export} is named like a run's checkpoint; give another name")
    inputs = [*files_of_run(args.checkpoint), *(hdf5 / name for name in OUTPUTS)]
    report = [args.report / name for name in REPORT_FILES] if args.report else []
    outputs = filter(None, (args.json, args.export, args.csv, args.sheet, *report))
    check_outputs(outputs, [*inputs, *photographs])


def evaluate(args: argparse.Namespace, state: "RunState", hdf5: Path) -> None:
    """Print rank-1 and rank-5 over every image of a split; write the report if asked for."""
    from pipeline.io.files import write_json
    from pipeline.io.hdf5_dataset import open_split
    from pipeline.run.start import check_classes, may_have_seen

    dataset = open_split(hdf5, args.split)
    check_classes(state, dataset)
    warning = SEEN if may_have_seen(state, dataset) else ""
    if warning:
        say(f"warning: {warning}", error=True)
    import_keras()
    from pipeline.evaluation.metrics import check_probabilities, predict, score
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.checkpoint import export

    data = HDF5Generator(dataset, args.batch_size, image_size=lambda _: state.size_to_evaluate)
    predictor = load_predictor(args, state)
    probabilities = predict(predictor, data)
    check_probabilities(probabilities)
    scores = score(probabilities, dataset.labels)
    say(f"Rank-1: {scores.rank1:.2%}  Rank-5: {scores.rank5:.2%}  ({scores.images} images)")
    if args.json:
        settings = {"split": args.split, "data": str(dataset.path), "flip": args.flip,
                    "model": str(args.checkpoint), "epoch": state.epoch,
                    "image_size": state.size_to_evaluate, "warning": warning}  # fmt: skip
        write_json(args.json, asdict(scores) | settings)
        say(f"wrote {args.json}")
    if args.export:
        export(predictor.model, args.export, state)
        say(f"wrote {args.export}")
    if args.report:
        from pipeline.evaluation.report import Report

        write_report(args, state, Report(dataset, probabilities), warning)


def load_predictor(args: argparse.Namespace, state: "RunState") -> "Predictor":
    """Return the checkpoint's model with its settings to predict."""
    from pipeline.evaluation.metrics import Predictor
    from pipeline.run.checkpoint import load_model

    return Predictor(
        load_model(args.checkpoint), args.batch_size, state.size_to_evaluate, args.flip
    )


def write_report(
    args: argparse.Namespace, state: "RunState", report: "Report", warning: str
) -> None:
    """Write the report, headed by what was measured and how."""
    facts = {
        "model": args.checkpoint.name,
        "trained": f"recipe {state.recipe_name}, {state.epoch} epochs, seed {state.seed}",
        "classes": f"{len(state.classes)}",
        "image size": f"{state.size_to_evaluate} pixels",
        "predictions": "averaged with those for mirrored images" if args.flip else "one per image",
    }
    report.write(args.report, facts | ({"warning": warning} if warning else {}))
    say(f"wrote {', '.join(REPORT_FILES)} to {args.report}")


def classify(args: argparse.Namespace, state: "RunState", photographs: Sequence[Path]) -> None:
    """Print the five most probable classes of each photograph, and write them if asked for."""
    from pipeline.plotting import picture_format

    if args.sheet:
        picture_format(args.sheet)
    import_keras()
    from pipeline.evaluation.predictions import (
        predict_photographs,
        prediction_records,
        write_predictions,
    )
    from pipeline.evaluation.sheet import MAX_PHOTOGRAPHS, write_sheet
    from pipeline.io.files import write_json

    classified = []
    predictor = load_predictor(args, state)
    for photo in predict_photographs(predictor, photographs, state.classes):
        say(photo.path)
        for predicted in photo.predictions:
            names = dict.fromkeys((predicted.class_id, predicted.words))  # one where they are equal
            say(f"  {predicted.probability:6.1%}  {'  '.join(names)}")
        shown = args.sheet and len(classified) < MAX_PHOTOGRAPHS
        classified.append(photo if shown else replace(photo, image=None))  # for the memory
    if not classified:
        raise UserError(f"none of {len(photographs)} images could be read; name others")
    if skipped := len(photographs) - len(classified):
        say(f"skipped {skipped} of {len(photographs)} images, named on stderr")
    if args.json:
        write_json(args.json, prediction_records(classified))
        say(f"wrote {args.json}")
    if args.csv:
        write_predictions(args.csv, classified)
        say(f"wrote {args.csv}")
    if args.sheet:
        write_sheet(args.sheet, classified)
        say(f"wrote {args.sheet}")


def print_next(args: argparse.Namespace, hdf5: Path) -> None:
    """Say what to do next."""
    if args.report:
        say(f"next: open {quote(args.report / REPORT_PAGE)} in a browser")
        return
    from pipeline.run.output_folder import unused_path
    from pipeline.run.start import can_evaluate

    if args.images and can_evaluate(args.checkpoint, hdf5):
        flags = {"-m": args.model, "--report": unused_path(config.REPORT), "--hdf5": args.hdf5}
        say(f"next: {shell_command('model_eval.py', flags)}")
    else:
        say(f"next: {shell_command('view_model.py', {'-m': args.model})}")


if __name__ == "__main__":
    run_script(main)
