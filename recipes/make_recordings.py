"""Makes recordings of Fashion-MNIST in front of an event camera, for the recipe
fashion_mnist_events.

`python -m recipes.make_recordings FOLDER` writes AEDAT files. See
`recipes.data.saccades` for how they are made.
"""

import keras

from recipes import command_line
from recipes.data import fashion_mnist, fashion_mnist_events


def add_arguments(parser):
    command_line.add_path(parser, "folder", "new folder for the recordings", "FOLDER")
    command_line.add_data_dir(parser, "folder of Fashion-MNIST's files")
    command_line.add_count(parser, "--train", "number of recordings for training", 6000)
    command_line.add_count(parser, "--test", "number of recordings for testing", 1000)


def make(arguments):
    bar = keras.utils.Progbar(arguments.train + arguments.test, unit_name="recording")
    with command_line.mistakes():
        data = fashion_mnist.load(arguments.data_dir)
        fashion_mnist_events.write(
            arguments.folder,
            data,
            arguments.train,
            arguments.test,
            lambda: bar.add(1),
        )


main = command_line.command(__name__, "make_recordings", __doc__, add_arguments, make)
