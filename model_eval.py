#!/usr/bin/env python3
"""Measure a trained model: rank-1 and rank-5 over every image of a split."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, positive_integer, run_script

if TYPE_CHECKING:
    from pipeline.hdf5_dataset import HDF5Dataset
    from pipeline.run_state import RunState


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(
        __doc__, "python model_eval.py -m outs/quick/epoch-010-val_loss-2.345.keras --split val"
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        default=config.RELEASED_MODEL,
        help="what model_train.py wrote",
    )
    parser.add_argument(
        "--split",
        choices=("test", "val", "train"),
        default="test",
        help="choose between models by val, and read test once",
    )
    parser.add_argument(
        "--flip", action="store_true", help="average with the predictions for mirrored images"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the model alone, in 16 bits, to pass on: a sixth of the checkpoint's size",
    )
    parser.add_argument(
        "--hdf5",
        type=Path,
        metavar="DIR",
        help="what build_dataset.py wrote (default: where it writes by default)",
    )
    parser.add_argument(
        "-b",
        "--batch-size",
        type=positive_integer,
        metavar="N",
        default=config.EVALUATION_BATCH_SIZE,
        help="images at a time",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate as the command line says."""
    args = parse_arguments(argv)
    from pipeline.checkpoint import export, load_model, read_state
    from pipeline.files import write_json
    from pipeline.hdf5_dataset import open_split
    from pipeline.run_state import check_classes
    from pipeline.tiny_imagenet import default_hdf5_folder, find_data_set

    state = read_state(args.model)
    hdf5 = args.hdf5 or default_hdf5_folder(find_data_set(config.DATASET))
    dataset = open_split(hdf5, args.split)
    check_classes(state, dataset)
    warn_of_seen_images(state, dataset)

    import_keras()
    from pipeline.evaluation import evaluate
    from pipeline.hdf5_generator import HDF5Generator

    model = load_model(args.model)
    with HDF5Generator(dataset, args.batch_size) as data:
        data.begin_epoch(1, state.image_size)
        scores = evaluate(model, data, flip=args.flip)

    print(f"Rank-1: {scores.rank1:.2%}  Rank-5: {scores.rank5:.2%}  ({scores.images} images)")
    if args.json:
        write_json(
            args.json,
            {
                "rank1": scores.rank1,
                "rank5": scores.rank5,
                "images": scores.images,
                "split": args.split,
                "flip": args.flip,
                "model": str(args.model),
                "epoch": state.epoch,
                "loss": scores.loss,
            },
        )
        print(f"wrote {args.json}")
    if args.export:
        export(args.model, args.export)
        print(f"wrote {args.export}")
    print(f"next: python view_model.py -m {quote(str(args.model))}")


def warn_of_seen_images(state: "RunState", dataset: "HDF5Dataset") -> None:
    """Warn where the test split was drawn with another seed than the one trained beside."""
    if dataset.split == "test" and dataset.seed != state.data_seed:
        print(
            f"warning: this test split was drawn with seed {dataset.seed}, and the model was "
            f"trained beside that of seed {state.data_seed}: it has seen most of these images",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_script(main)
