"""Trains a recipe: `python -m recipes.train digits`. KERAS_BACKEND selects the backend.

Interrupted runs resume: the same command continues after the last completed epoch.
"""

import pathlib
import sys

from recipes import command_line


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    command = [sys.executable, "-m", "recipes.train", *(sys.argv[1:] if argv is None else argv)]

    def start(arguments):
        # Keras and its backend take seconds to import, so they are imported where Ctrl-C is handled.
        from recipes import training

        return training.start(arguments, command)

    return command_line.run(parser, start, argv, " before training began; repeat the command to start or resume")


def parser():
    epilog = "Interrupted runs resume: repeat the command to continue after the last completed epoch."
    result = command_line.parser("train", __doc__, epilog=epilog)
    command_line.add_recipe(result)
    result.add_argument(
        "--output", type=pathlib.Path, metavar="DIR", help="folder of the run: checkpoints, logs, result (default: runs/NAME)"
    )
    result.add_argument(
        "--devices",
        metavar="N",
        default="1",
        help="number of devices, or all; without accelerators they are virtual (default: 1)",
    )
    result.add_argument(
        "--restart",
        action="store_true",
        help="deletes the run in the folder, with its ordinary network, and starts again",
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
