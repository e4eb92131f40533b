"""Trains a recipe: `python -m recipes.train digits`. KERAS_BACKEND selects the backend.

Interrupted runs resume: the same command continues after the last completed epoch.
"""

import sys

from recipes import command_line

EPILOG = (
    "Interrupted runs resume: repeat the command to continue after the last "
    "completed epoch."
)


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def start(arguments):
        # Keras and its backend take seconds to import, so they are imported where
        # Ctrl-C is handled.
        from recipes import training

        return training.start(arguments, [sys.executable, "-m", "recipes.train", *argv])

    advice = " before training began; repeat the command to start or resume"
    return command_line.command(
        None, "train", __doc__, add_arguments, start, advice, epilog=EPILOG
    )(argv)


def add_arguments(parser):
    command_line.add_recipe(parser)
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


if __name__ == "__main__":
    raise SystemExit(main())
