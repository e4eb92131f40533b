"""Makes recordings of Fashion-MNIST in front of an event camera, for the recipe fashion_mnist_events.

`python -m recipes.make_recordings FOLDER` writes AEDAT files. See `recipes.data.saccades` for how they are made.
"""

import pathlib
import sys

import keras

from recipes import command_line
from recipes.data import fashion_mnist, fashion_mnist_events


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return command_line.run(parser, make, argv)


def parser():
    result = command_line.parser("make_recordings", __doc__)
    result.add_argument("folder", type=pathlib.Path, metavar="FOLDER", help="new folder for the recordings")
    command_line.add_data_dir(result, "folder of Fashion-MNIST's files")
    result.add_argument("--train", type=int, default=6000, metavar="N", help="recordings for training (default: 6000)")
    result.add_argument("--test", type=int, default=1000, metavar="N", help="recordings for testing (default: 1000)")
    result.add_argument("--seed", type=int, default=0, help="(default: 0)")
    return result


def make(arguments):
    bar = keras.utils.Progbar(arguments.train + arguments.test, unit_name="recording")
    with command_line.mistakes():
        data = fashion_mnist.load(arguments.data_dir)
        fashion_mnist_events.write(arguments.folder, data, arguments.train, arguments.test, arguments.seed, lambda: bar.add(1))


if __name__ == "__main__":
    sys.exit(main())
