"""Detection: boxes and their classes, with keras-cv's detectors."""

import contextlib
import importlib
import io

import numpy as np

from recipes import packages
from recipes.tasks import pictures
from recipes.tasks.task import Task

BOX_FORMAT = "xyxy"
"""Of the labels: left, top, right and bottom edges in pixels."""

CLASSIFICATION_WEIGHT = 0.5
"""As in YOLOv8, which takes the sum over the classes, whereas the loss of keras-cv is
their mean."""

PACKAGES = {"keras_cv": "cv", "pycocotools": "cv", "matplotlib": "plots"}
"""What detection needs, and the extras that install it."""

DRAWN_CONFIDENCE = 0.3
"""The smallest confidence of a box in a picture."""


def check_packages():
    """Checks that everything is installed, before time is spent.

    Raises:
        ImportError: If not.
    """
    for package, extra in PACKAGES.items():
        packages.imported(package, "Detection", f"recipes,{extra}")
    # Saved detectors are of its class.
    importlib.import_module("recipes.tasks.yolo")


def check_side(side, stride):
    """Checks that a detector with this largest stride can be built for images of this
    height and width.

    Raises:
        ValueError: If not.
    """
    if side % stride:
        raise ValueError(
            f"`image_side` must be a multiple of {stride}, the largest stride of the "
            f"network. Received: {side}."
        )


def compile_arguments(recipe, dataset):
    return {
        "box_loss": "ciou",
        "classification_loss": "binary_crossentropy",
        "classification_loss_weight": CLASSIFICATION_WEIGHT * dataset.classes,
    }


def precision_scores(model, batches, dataset):
    """The mean average precisions of a model."""
    labels = [labels for _, labels in batches.as_numpy_iterator()]
    labels = {
        key: np.concatenate([batch[key] for batch in labels]) for key in labels[0]
    }
    return mean_average_precision(
        labels,
        predicted(model, batches.map(lambda images, labels: images)),
        dataset.classes,
    )


def mean_average_precision(labels, predictions, classes):
    """The mean over classes of the average precision, by COCO's own evaluation in
    pycocotools.

    Args:
        labels: Dict of `"boxes"`, an array `(images, boxes, 4)` of left, top, right and
            bottom edges in pixels, and `"classes"`, `(images, boxes)`, -1 where there
            is no box.
        predictions: Likewise, and with `"confidence"`, `(images, boxes)`.
        classes: Integer, the number of classes.

    Returns:
        Dict of floats: `"map_50"`, where a box is right if its intersection over union
        with a box of the labels is at least 0.5; and `"map"`, the mean for 0.5, 0.55,
        ..., 0.95.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = [
        {
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "score": float(predictions["confidence"][image, place]),
        }
        for image, place, category, box in _boxes(predictions)
    ]
    if not boxes:
        return {"map_50": 0.0, "map": 0.0}
    expected = [
        {
            "id": 1 + number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, _, category, box) in enumerate(_boxes(labels))
    ]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(len(labels["boxes"]))],
        "categories": [{"id": category} for category in range(classes)],
        "annotations": expected,
    }
    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map_50": float(evaluation.stats[1]), "map": float(evaluation.stats[0])}


def _boxes(labels):
    """Yields image, place, class and `[left, top, width, height]` of each box."""
    for image, place in np.argwhere(labels["classes"] >= 0).tolist():
        left, top, right, bottom = labels["boxes"][image, place].tolist()
        yield (
            image,
            place,
            int(labels["classes"][image, place]),
            [left, top, right - left, bottom - top],
        )


def predicted(model, images):
    """Predicted boxes with their classes and confidence, a dict of arrays; for their
    shapes see `mean_average_precision`."""
    outputs = model.predict(images, verbose=0)
    return {key: np.asarray(outputs[key]) for key in ("boxes", "classes", "confidence")}


def draw(model, dataset, path):
    """Draws predicted boxes, and those of the labels, dashed, for some test images."""
    images = dataset.test_images[: pictures.IMAGES]
    boxes = predicted(model, images)
    axes, figure = pictures.grid(images)
    for number, axis in enumerate(axes):
        for place in np.flatnonzero(dataset.test_labels["classes"][number] >= 0):
            pictures.box(
                axis,
                dataset.test_labels["boxes"][number][place],
                "white",
                linestyle=":",
            )
        sure = (boxes["classes"][number] >= 0) & (
            boxes["confidence"][number] >= DRAWN_CONFIDENCE
        )
        for place in np.flatnonzero(sure):
            kind, confidence = (
                int(boxes["classes"][number][place]),
                boxes["confidence"][number][place],
            )
            text = f"{dataset.class_names[kind]} {confidence:.2f}"
            pictures.box(
                axis, boxes["boxes"][number][place], pictures.color(kind), text
            )
    pictures.save(figure, path)


DETECTION = Task(
    score="map_50",
    check_packages=check_packages,
    compile_arguments=compile_arguments,
    further_scores=precision_scores,
    draw=draw,
    several_devices=False,
)
