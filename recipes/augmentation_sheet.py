"""Draws examples of augmentation: `python -m recipes.augmentation_sheet cifar10
--output sheet.png`.

Each row shows an original image, then augmentations with several seeds. Event frames
are augmented together: each row is a frame of the same recording, with OFF in red and
ON in cyan.
"""

import argparse
import pathlib

import numpy as np

from recipes import augmentation, catalogue, command_line, packages
from recipes.augmentation import layers
from recipes.data import cifar, cifar10_dvs, fashion_mnist
from recipes.packages import tensorflow_for_data
from recipes.recipe_checks import LARGEST_SEED

SUB_POLICIES = "sub_policies"
EPILOG = (
    f"{SUB_POLICIES}: a row for each sub-policy of AutoAugment, with all of its "
    "steps applied."
)
LAYERS = {**layers.AUGMENTATIONS, **layers.MIXES}
NO_IMAGES = "spoken_words", layers.OF_SEQUENCES
NAMES = [name for name in (*augmentation.BY_NAME, *LAYERS) if name not in NO_IMAGES] + [
    SUB_POLICIES
]

IMAGES = 6
SAMPLES = 8
SMALLEST_CELL = 96
GAP = 3


def draw(arguments):
    with command_line.mistakes():
        rows = sheet_rows(arguments.name, arguments.seed, arguments.data_dir)
        write_png(rows, arguments.output)
    print(
        f"{arguments.output}: {len(rows)} rows, the original and {SAMPLES} samples each"
    )


def add_arguments(parser):
    parser.add_argument("name", metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument(
        "--output",
        type=_png,
        required=True,
        metavar="FILE",
        help="output image, a .png file",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="S",
        help="random seed for images and samples (default: 0)",
    )
    command_line.add_data_dir(
        parser,
        "folder of the data (default: resized photographs that ship with scikit-learn)",
    )


def _png(text):
    path = pathlib.Path(text)
    if path.suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must be a .png file, not {text}")
    return path


def _seed(text):
    seed = int(text)
    if not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(
            f"must be from 0 to {LARGEST_SEED}, not {seed}"
        )
    return seed


def sheet_rows(name, seed, data_dir=None):
    """The rows of a sheet: each a list of images, the original and `SAMPLES` samples.

    Args:
        name: One of `NAMES`.
        seed: Integer, the base of all seeds.
        data_dir: Folder of the data set's files, or None for photographs that ship with
            scikit-learn.

    Returns:
        A list of lists of float32 tensors.
    """
    tf = tensorflow_for_data()
    images = (
        shipped_images(name)
        if data_dir is None
        else data_set_images(name, seed, data_dir)
    )
    images = [tf.cast(image, tf.float32) for image in images]
    if name in LAYERS:
        batch = {"images": tf.stack(images), "labels": tf.eye(len(images))}
        # In `tf.data` layers use TensorFlow with every backend.
        made = [
            LAYERS[name](layers.seed_of(seed, sample, 0)) for sample in range(SAMPLES)
        ]
        columns = [
            next(iter(tf.data.Dataset.from_tensors(batch).map(layer)))["images"]
            for layer in made
        ]
        return [list(row) for row in zip(batch["images"], *columns, strict=True)]
    if name == SUB_POLICIES:
        return _sub_policy_rows(images, seed)
    if images[0].shape.rank == 4:
        frames = [
            images[0],
            *_samples(augmentation.of_images(name), images[0], (seed, 0)),
        ]
        return [list(row) for row in zip(*frames, strict=True)]
    return [
        [image, *_samples(augmentation.of_images(name), image, (seed, number))]
        for number, image in enumerate(images)
    ]


def _samples(augment, image, seed):
    import tensorflow as tf

    seeds = (
        tf.random.experimental.stateless_fold_in(seed, sample)
        for sample in range(SAMPLES)
    )
    return [augment(image, own_seed) for own_seed in seeds]


def _sub_policy_rows(images, seed):
    """A row for each sub-policy, with all of its steps applied; prints the sub-policy
    of each row."""
    from recipes.augmentation.auto_augment import CIFAR10_POLICY, auto_augment

    rows = []
    for number, steps in enumerate(CIFAR10_POLICY):
        print(
            f"row {number + 1}: "
            + ", ".join(f"{operation} {level}" for operation, _, level in steps)
        )
        augment = auto_augment(
            [[(operation, 1.0, level) for operation, _, level in steps]]
        )
        image = images[number % len(images)]
        rows.append([image, *_samples(augment, image, (seed, number))])
    return rows


# The images


def data_set_images(name, seed, data_dir):
    """The first images of a data set with this augmentation; CIFAR-10 if it does not
    belong to one data set."""
    augment = name if name in augmentation.BY_NAME else "cifar10"
    recipe = next(
        recipe for recipe in catalogue.RECIPES.values() if recipe.augment == augment
    )
    return [
        image
        for image, _ in recipe.load(data_dir).train_examples((seed, 0)).take(IMAGES)
    ]


def shipped_images(name):
    """The photographs that ship with scikit-learn, resized to the shape of a data set's
    images.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    from recipes.data.resizing import resized

    photographs = (
        packages.imported("sklearn.datasets", "Without --data-dir the sheet", "recipes")
        .load_sample_images()
        .images
    )
    if name == "imagenet":
        return photographs
    side = min(photographs[0].shape[:2])
    squares = [
        photograph[:side, left : left + side]
        for photograph in photographs
        for left in (0, 100, 200)
    ]
    if name == "cifar10_dvs":
        return [_events(square) for square in squares]
    if name.startswith("fashion_mnist"):
        return [
            resized(square, fashion_mnist.IMAGE_SHAPE[:2])
            .numpy()
            .mean(-1, keepdims=True)
            for square in squares
        ]
    return [
        resized(square, cifar.IMAGE_SHAPE[:2]).numpy().round() for square in squares
    ]


def _events(photograph, frames=4):
    """Simulated event frames of a moving photograph: `(frames, height, width, 2)`,
    darker and brighter pixels."""
    from recipes.data.resizing import resized

    height, width, _ = cifar10_dvs.IMAGE_SHAPE
    gray = resized(photograph, (height, width + frames)).numpy().mean(-1)
    changes = np.stack(
        [
            gray[:, 1 + frame :][:, :width] - gray[:, frame:][:, :width]
            for frame in range(frames)
        ]
    )
    return np.stack([np.maximum(-changes, 0), np.maximum(changes, 0)], axis=-1)


# The picture


def write_png(rows, path):
    """Writes rows of images (RGB, grey, or OFF and ON) to a PNG file.

    Raises:
        OSError: If the file cannot be written.
    """
    import tensorflow as tf

    cells = [[_cell(image, rows[0][-1].shape[:2]) for image in row] for row in rows]
    picture = tf.concat([tf.concat(row, axis=1) for row in cells], axis=0)
    try:
        path.write_bytes(tf.io.encode_png(tf.cast(tf.round(picture), tf.uint8)).numpy())
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}). Pass another file "
            "with --output."
        ) from error


def _cell(image, shape):
    """An RGB image fitted into `shape`, enlarged if it is small, with a white
    border."""
    import tensorflow as tf

    if image.shape[-1] == 2:
        brightest = tf.maximum(tf.reduce_max(image), 1)
        image = tf.gather(image * (255 / brightest), [0, 1, 1], axis=-1)
    if image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    if image.shape[:2] != shape:
        image = tf.image.resize_with_pad(image, *shape, antialias=True)
    times = -(-SMALLEST_CELL // min(shape))
    image = tf.repeat(tf.repeat(image, times, axis=0), times, axis=1)
    return tf.pad(image, [(GAP, GAP), (GAP, GAP), (0, 0)], constant_values=255)


main = command_line.command(
    __name__, "augmentation_sheet", __doc__, add_arguments, draw, epilog=EPILOG
)
