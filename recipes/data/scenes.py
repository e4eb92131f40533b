"""Scenes of several digits, for detection and segmentation, made from the digits that
ship with scikit-learn."""

import numpy as np

from recipes.data import coco, digits
from recipes.data.dataset import Dataset

SIDE = 64
MOST_DIGITS = 4
CLASS_NAMES = tuple(map(str, range(digits.CLASSES)))

SIZES = 14, 30
"""Smallest and largest height of a digit's square in pixels."""

CONTRASTS = 0.4, 1.0
"""Smallest and largest contrast of a digit, as a fraction of the largest possible."""

MOST_OVERLAP = 0.1
"""The largest part of the smaller of two boxes that the other may cover."""

INK = 0.25
"""A pixel of a digit brighter than this fraction of the brightest belongs to the
digit."""

TRIES = 30
"""How often a place is drawn for a digit; if it never fits, the scene has one digit
less."""

TRAIN_SCENES, TEST_SCENES = 8000, 500
TRAIN_SEED, TEST_SEED = 1, 2
"""The scenes are the same in every run."""


def load_boxes(data_dir=None, image_side=SIDE):
    """Scenes and the boxes of their digits; or another data set for detection, from a
    folder.

    Args:
        data_dir: Folder in the format of `coco.load`, or None for scenes.
        image_side: Integer, the height and width of images; that of scenes is 64.
            Defaults to `64`.

    Returns:
        A `Dataset` with labels as in `coco.load`.

    Raises:
        ValueError: If `image_side` does not fit, or what `coco.load` raises.
    """
    if data_dir is not None:
        return coco.load(data_dir, image_side)
    if image_side != SIDE:
        raise ValueError(
            f"`image_side` of scenes is {SIDE}. Received: image_side={image_side}. "
            "Pass images with --data-dir."
        )
    parts = [
        (scenes, {"boxes": boxes, "classes": classes})
        for scenes, boxes, classes, _ in _train_and_test()
    ]
    return Dataset(*parts[0], *parts[1], class_names=CLASS_NAMES)


def load_masks(data_dir=None):
    """Scenes and the class of each pixel.

    Args:
        data_dir: Must be None; only other data sets use a folder.

    Returns:
        A `Dataset`. Labels are arrays `(images, 64, 64)` of integers; class 0 is the
        background.

    Raises:
        ValueError: If a folder was given.
    """
    parts = [(scenes, masks) for scenes, _, _, masks in _train_and_test(data_dir)]
    return Dataset(*parts[0], *parts[1], class_names=("background", *CLASS_NAMES))


def _train_and_test(data_dir=None):
    """Results of `made`, from training digits and from test digits."""
    data = digits.load(data_dir)
    yield made(data.train_images, data.train_labels, TRAIN_SCENES, TRAIN_SEED)
    yield made(data.test_images, data.test_labels, TEST_SCENES, TEST_SEED)


def made(images, labels, number, seed):
    """Scenes of one to four digits with random places, sizes and contrasts on a noisy
    background.

    Args:
        images: Array `(digits, height, width, 1)`, the digits to choose from.
        labels: Array `(digits,)`, their classes.
        number: Integer, how many scenes.
        seed: Integer.

    Returns:
        `(scenes, boxes, classes, masks)`: arrays `(number, 64, 64, 1)` of uint8;
        `(number, 4, 4)` of float32, the left, top, right and bottom edges in pixels, -1
        where a scene has fewer digits; `(number, 4)` of float32, -1 likewise; and
        `(number, 64, 64)` of int32, the class of each pixel, where 0 is the background
        and 1 the digit zero.
    """
    generator = np.random.default_rng(seed)
    scenes = np.empty((number, SIDE, SIDE, 1), "uint8")
    boxes = np.full((number, MOST_DIGITS, 4), -1, "float32")
    classes = np.full((number, MOST_DIGITS), -1, "float32")
    masks = np.zeros((number, SIDE, SIDE), "int32")
    for scene in range(number):
        background = generator.uniform(0, 0.3)
        canvas = background + generator.normal(0, 0.03, (SIDE, SIDE))
        placed = 0
        for _ in range(generator.integers(1, MOST_DIGITS + 1)):
            choice = generator.integers(len(images))
            pixels = images[choice, ..., 0] / digits.LARGEST_PIXEL
            side = generator.integers(SIZES[0], SIZES[1] + 1)
            digit = _trimmed(_enlarged(pixels, side))
            corner = _free_corner(generator, digit.shape, boxes[scene, :placed])
            if corner is None:
                continue
            left, top = corner
            height, width = digit.shape
            place = slice(top, top + height), slice(left, left + width)
            canvas[place] += digit * generator.uniform(*CONTRASTS) * (1 - background)
            masks[scene][place][digit > INK] = labels[choice] + 1
            boxes[scene, placed] = left, top, left + width, top + height
            classes[scene, placed] = labels[choice]
            placed += 1
        scenes[scene, ..., 0] = np.clip(np.round(canvas * 255), 0, 255)
    return scenes, boxes, classes, masks


def _enlarged(digit, side):
    """A digit resized to a square, by linear interpolation between the centres of its
    pixels."""
    size = len(digit)
    centers = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    distances = np.abs(centers[:, np.newaxis] - np.arange(size))
    weights = np.maximum(0, 1 - distances)
    return weights @ digit @ weights.T


def _trimmed(digit):
    """The part of a digit inside the bounding box of its ink."""
    rows, columns = np.nonzero(digit > INK)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _free_corner(generator, shape, boxes):
    """Left and top of a random place of this shape that hardly overlaps the boxes, or
    None if there is none."""
    height, width = shape
    for _ in range(TRIES):
        left = generator.integers(SIDE - width + 1)
        top = generator.integers(SIDE - height + 1)
        first = np.maximum(boxes[:, :2], [left, top])
        last = np.minimum(boxes[:, 2:], [left + width, top + height])
        overlap = np.maximum(last - first, 0).prod(axis=1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        if (overlap <= MOST_OVERLAP * np.minimum(areas, height * width)).all():
            return left, top
    return None
