"""Data sets for detection in the format of COCO: two annotation files and two folders
of images."""

import math
import pathlib

import numpy as np

from recipes.atomic_files import read_json
from recipes.data.dataset import Dataset

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
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged or has the wrong content; the message names it.
    """
    folder = pathlib.Path(folder)
    parts = [_read(folder / f"{name}.json") for name in ("train", "test")]
    names = parts[0]["names"]
    if not parts[0]["images"] or not parts[1]["images"]:
        raise ValueError(
            f"train.json and test.json in {folder} must list at least one image each. "
            f"{FOLDER_ADVICE}"
        )
    unknown = sorted(set(parts[1]["names"]) - set(names))
    if unknown:
        raise ValueError(
            f"{folder / 'test.json'} has categories that are not in train.json: "
            f"{', '.join(unknown)}."
        )
    most = max(len(boxes) for part in parts for boxes in part["boxes"].values())
    (train_images, train_labels), (test_images, test_labels) = (
        _arrays(part, folder / name, names, max(most, 1), image_side)
        for part, name in zip(parts, ("train", "test"), strict=True)
    )
    return Dataset(
        train_images, train_labels, test_images, test_labels, class_names=tuple(names)
    )


def _read(path):
    """The checked content of an annotation file: names of categories, images, and
    `(class name, box)` pairs by image id."""
    try:
        content = read_json(
            path,
            {"categories": list, "images": list, "annotations": list},
            FOLDER_ADVICE,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file {path}. {FOLDER_ADVICE}") from error
    categories = _entries(path, content, "categories", {"id": int, "name": str})
    images = _entries(path, content, "images", {"id": int, "file_name": str})
    annotations = _entries(
        path,
        content,
        "annotations",
        {"image_id": int, "category_id": int, "bbox": list},
    )
    names = {category["id"]: category["name"] for category in categories}
    if not names:
        raise ValueError(f"{path} must have at least one category.")
    boxes = {image["id"]: [] for image in images}
    for index, annotation in enumerate(annotations):
        where = f"Entry {index} of 'annotations' in {path}"
        if annotation["image_id"] not in boxes:
            raise ValueError(
                f"{where} has the image_id {annotation['image_id']}, which is not the "
                "id of an image."
            )
        if annotation["category_id"] not in names:
            raise ValueError(
                f"{where} has the category_id {annotation['category_id']}, which is "
                "not the id of a category."
            )
        box = annotation["bbox"]
        numbers = len(box) == 4 and all(
            isinstance(value, (int, float)) and math.isfinite(value) for value in box
        )
        if not numbers or box[2] < 0 or box[3] < 0:
            raise ValueError(
                f"{where} must have a bbox of four numbers: left, top, width, height. "
                f"It has {box}."
            )
        if not annotation.get("iscrowd"):
            boxes[annotation["image_id"]].append(
                (names[annotation["category_id"]], box)
            )
    return {"names": sorted(set(names.values())), "images": images, "boxes": boxes}


def _entries(path, content, name, fields):
    """The entries of a list in an annotation file, which must have these fields."""
    for index, entry in enumerate(content[name]):
        for field, kind in fields.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                raise ValueError(
                    f"Entry {index} of {name!r} in {path} must have {field!r} of type "
                    f"{kind.__name__}."
                )
    return content[name]


def _arrays(part, folder, names, most, side):
    """Images and labels of a part of the data."""
    images = np.empty((len(part["images"]), side, side, 3), "uint8")
    boxes = np.full((len(images), most, 4), NO_BOX, "float32")
    classes = np.full((len(images), most), NO_BOX, "float32")
    for row, entry in enumerate(part["images"]):
        picture = _picture(folder / entry["file_name"])
        height, width = picture.shape[:2]
        for key, size in (("height", height), ("width", width)):
            if entry.get(key, size) != size:
                file = folder / entry["file_name"]
                raise ValueError(
                    f"The image {file} has the {key} {size}, but the annotations say "
                    f"{entry[key]}."
                )
        images[row] = _resized(picture, side)
        place = 0
        for name, (left, top, box_width, box_height) in part["boxes"][entry["id"]]:
            edges = np.array([left, top, left + box_width, top + box_height]) / [
                width,
                height,
                width,
                height,
            ]
            edges = np.clip(edges, 0, 1) * side
            if (edges[2:] > edges[:2]).all():
                boxes[row, place], classes[row, place] = edges, names.index(name)
                place += 1
    return images, {"boxes": boxes, "classes": classes}


def _picture(path):
    """The RGB pixels of an image file."""
    import tensorflow as tf

    try:
        return tf.io.decode_image(
            path.read_bytes(), channels=3, expand_animations=False
        ).numpy()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no image {path}, which the annotations name. {FOLDER_ADVICE}"
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"The image {path} is damaged, or neither PNG, JPEG, GIF nor BMP."
        ) from error


def _resized(picture, side):
    # Imported here because it imports TensorFlow.
    from recipes.data.resizing import resized

    return np.clip(np.round(resized(picture, (side, side)).numpy()), 0, 255)
