"""Makes recordings of Fashion-MNIST in front of an event camera, for the recipe fashion_mnist_events.

`python -m recipes.make_recordings FOLDER` writes AEDAT files. See `recipes.data.saccades` for how they are made.
"""

import argparse
import pathlib
import sys

import keras

from recipes.command_line import interruptible, mistake
from recipes.data import fashion_mnist, fashion_mnist_events


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.make_recordings", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="new folder for the recordings")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of Fashion-MNIST's files")
    parser.add_argument("--train", type=int, default=6000, metavar="N", help="recordings for training (default: 6000)")
    parser.add_argument("--test", type=int, default=1000, metavar="N", help="recordings for testing (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    arguments = parser.parse_args(argv)
    bar = keras.utils.Progbar(arguments.train + arguments.test, unit_name="recording")
    try:
        data = fashion_mnist.load(arguments.data_dir)
        fashion_mnist_events.write(arguments.folder, data, arguments.train, arguments.test, arguments.seed, lambda: bar.add(1))
    except (ValueError, OSError, ImportError) as error:
        return mistake(error)
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
