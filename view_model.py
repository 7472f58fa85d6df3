#!/usr/bin/env python3
"""Draw GoogLeNet, or a trained model, with Graphviz."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from config import setup_config as config
from pipeline.backend import import_keras
from pipeline.command_line import new_parser, run_script, shell_command
from pipeline.errors import UserError
from pipeline.printing import say
from pipeline.recipe import choose_recipe


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser(__doc__, "python view_model.py --layers -o outs/googlenet-layers.svg")
    add = parser.add_argument
    add("-m", "--model", type=Path, metavar="PATH",
        help="a Keras file, or a run's folder, whose best epoch by val is taken "
        "(default: the network of the recipe)")  # fmt: skip
    add("-r", "--recipe", choices=config.RECIPES, default=config.DEFAULT_RECIPE,
        help="the recipe whose network to draw if -m is not given")  # fmt: skip
    add("-o", "--output", type=Path, metavar="FILE", default=config.DIAGRAM,
        help="the suffix decides the format: png, svg, pdf, jpg or dot")  # fmt: skip
    add("--layers", action="store_true", help="draw every layer, not only the blocks")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw as the command line says."""
    args = parse_arguments(argv)
    # Imported where they are used, so that --help and usage errors are instant.
    from pipeline.plotting import picture_format

    picture_format(args.output, "dot")  # refuses another suffix before anything is built
    if args.model:
        from pipeline.io.files import check_outputs
        from pipeline.run.output_folder import checkpoint_to_evaluate, files_of_run

        file = checkpoint_to_evaluate(args.model)
        check_outputs([args.output], files_of_run(file))
    else:
        file, recipe = None, choose_recipe(config.RECIPES, args.recipe)

    import_keras()
    from pipeline.nn.googlenet import googlenet
    from pipeline.plotting.diagram import network_graph
    from pipeline.plotting.graphviz import draw_graph
    from pipeline.run.checkpoint import load_model

    if args.model:
        model, size, title = load_model(file), image_size(file), file.name
    else:
        network = recipe.for_this_machine().network
        model = googlenet(network, config.CLASSES, means=(0.0, 0.0, 0.0))
        size, title = recipe.size_to_evaluate(recipe.epochs), f"GoogLeNet, recipe {args.recipe}"
    draw_graph(network_graph(model, size, title, args.layers), args.output)
    say(f"wrote {args.output}")
    say(f"next: {next_command(args, file)}")


def image_size(file: Path) -> int:
    """Return the image size that a model is evaluated at; IMAGE_SIZE where it is of no run."""
    from pipeline.run.checkpoint import read_state

    try:
        return read_state(file).size_to_evaluate
    except UserError:
        return config.IMAGE_SIZE


def next_command(args: argparse.Namespace, file: Path | None) -> str:
    """Return what to do next with what was drawn, as far as there is data."""
    from pipeline.run.output_folder import find_hdf5, unused_path
    from pipeline.run.start import can_evaluate

    if file and can_evaluate(file, find_hdf5(None, args.model, config.DATASET)):
        return shell_command("model_eval.py", {"-m": args.model})
    if not (find_hdf5(None, None, config.DATASET) / "train.hdf5").is_file():
        return shell_command("build_dataset.py", {"--download": True})
    folder = unused_path(config.OUTPUT / args.recipe)
    return shell_command("model_train.py", {"-r": args.recipe, "-o": folder})


if __name__ == "__main__":
    run_script(main)
