"""Data sets for detection in the format of COCO: two annotation files and two folders
of images."""

import contextlib
import io
import pathlib

import keras
import numpy as np

from recipes import packages
from recipes.data.dataset import Dataset, check_file

BILINEAR = 2
"""Pillow's number of bilinear interpolation, which also smooths what becomes
smaller."""

NO_BOX = -1.0
"""Fills the boxes and classes of images with fewer boxes than others."""

FOLDER_ADVICE = (
    "--data-dir is a folder with train.json and test.json, annotation "
    "files in the format of COCO's instances_*.json, and the folders train and test "
    "with their images."
)


def load(folder, image_side):
    """Images with boxes, all resized to squares.

    Annotations of crowds and boxes without area are left out. Boxes are clipped to
    their image.

    Args:
        folder: Path of a folder with `train.json`, `test.json` and the folders `train`
            and `test`.
        image_side: Integer, the height and width of the resized images in pixels.

    Returns:
        A `Dataset`. Images are RGB. Labels are a dict of `"boxes"`, `(images, most,
        4)`, the left, top, right and bottom edges in pixels, and `"classes"`, `(images,
        most)`, both of float32 and padded with -1.

    Raises:
        FileNotFoundError: If an annotation file is missing.
        ValueError: If a file is damaged or has the wrong content; the message names it.
    """
    folder = pathlib.Path(folder)
    train = _annotations(folder / "train.json")
    test = _annotations(folder / "test.json")
    names = sorted({category["name"] for category in train.cats.values()})
    counts = map(len, [*train.imgToAnns.values(), *test.imgToAnns.values()])
    sizes = names, max(counts, default=1), image_side
    return Dataset(
        *_arrays(train, folder / "train", *sizes),
        *_arrays(test, folder / "test", *sizes),
        class_names=tuple(names),
    )


def _annotations(path):
    """The `pycocotools.coco.COCO` of a file."""
    coco = packages.imported("pycocotools.coco", "COCO's format", "recipes,cv")
    check_file(path, FOLDER_ADVICE)
    # It prints what it does.
    with _errors_name(path), contextlib.redirect_stdout(io.StringIO()):
        annotations = coco.COCO(path)
        if not annotations.imgs:
            raise ValueError("no images are listed")
        if unknown := set(annotations.imgToAnns) - set(annotations.imgs):
            raise ValueError(f"boxes of the images {unknown}, which are not listed")
    return annotations


@contextlib.contextmanager
def _errors_name(what):
    try:
        yield
    # The error depends on what is wrong.
    except Exception as error:
        raise ValueError(
            f"{what} is damaged or of another format ({type(error).__name__}: {error})."
            f" {FOLDER_ADVICE}"
        ) from error


def _arrays(annotations, folder, names, most, side):
    """Images and labels of a part of the data."""
    images = np.empty((len(annotations.imgs), side, side, 3), "uint8")
    boxes = np.full((len(images), most, 4), NO_BOX, "float32")
    classes = np.full((len(images), most), NO_BOX, "float32")
    for row, (image, entry) in enumerate(annotations.imgs.items()):
        with _errors_name(f"{folder}.json, or the image of its entry {entry},"):
            picture = keras.utils.load_img(folder / entry["file_name"])
            width, height = picture.size
            if (entry["width"], entry["height"]) != picture.size:
                raise ValueError(f"the image is of {width} x {height} pixels")
            images[row] = picture.resize((side, side), BILINEAR)
            count = 0
            for annotation in annotations.imgToAnns[image]:
                edges = _edges(annotation["bbox"], width, height) * side
                has_area = (edges[2:] > edges[:2]).all()
                if has_area and not annotation.get("iscrowd"):
                    category = annotations.cats[annotation["category_id"]]
                    boxes[row, count] = edges
                    classes[row, count] = names.index(category["name"])
                    count += 1
    return images, {"boxes": boxes, "classes": classes}


def _edges(box, width, height):
    """The left, top, right and bottom edge of a box, as shares of its image."""
    left, top, box_width, box_height = box
    edges = np.array([left, top, left + box_width, top + box_height])
    return np.clip(edges / [width, height, width, height], 0, 1)
