"""Trains a recipe: `python -m recipes.train digits`. KERAS_BACKEND selects the backend.

Interrupted runs resume: the same command continues after the last completed epoch.
Without a name the recipes are listed.
"""

import sys

from recipes import catalogue, command_line


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def start(arguments):
        if arguments.recipe is None:
            print("\n".join(catalogue.listed()))
            return 0
        # Keras and its backend take seconds to import, so they are imported where
        # Ctrl-C is handled.
        from recipes import training

        return training.start(arguments, ["-m", "recipes.train", *argv])

    advice = " before training began; repeat the command to start or resume"
    epilog = "\n  ".join(["recipes:", *catalogue.listed()])
    return command_line.command(
        None, "train", __doc__, add_arguments, start, advice, epilog=epilog
    )(argv)


def add_arguments(parser):
    command_line.add_recipe(parser, "one of the recipes below", nargs="?")
    command_line.add_path(
        parser,
        "--output",
        "folder of the run: checkpoints, logs, result (default: runs/NAME)",
    )
    devices = (
        "number of devices, or all; without accelerators they are virtual (default: 1)"
    )
    parser.add_argument("--devices", metavar="N", default="1", help=devices)
    restart = (
        "deletes the run in the folder, with its ordinary network, and starts again"
    )
    parser.add_argument("--restart", action="store_true", help=restart)
    command_line.add_settings(parser)


if __name__ == "__main__":
    raise SystemExit(main())
