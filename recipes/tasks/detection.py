"""Detection: boxes and their classes, with keras-cv's detectors."""

import contextlib
import importlib
import io

import keras
import numpy as np

from recipes import packages
from recipes.tasks.task import Task

BOX_FORMAT = "xyxy"
"""The format of the labels: left, top, right and bottom edges in pixels."""

CLASSIFICATION_WEIGHT = 0.5
"""The weight of the classification loss, as in YOLOv8, which takes the sum over the
classes, whereas the loss of keras-cv is their mean."""

PACKAGES = {"keras_cv": "cv", "pycocotools": "cv", "matplotlib": "plots"}
"""The packages that detection needs, and the extras that install them."""

DRAWN_CONFIDENCE = 0.3
"""The smallest confidence of a box in a picture."""

PICTURES = 12
WHITE, RED = (255, 255, 255), (255, 64, 64)


def check_packages():
    """Checks that everything is installed, before time is spent.

    Raises:
        ImportError: If not.
    """
    for package, extra in PACKAGES.items():
        packages.imported(package, "Detection", f"recipes,{extra}")
    # Saved detectors are of its class.
    importlib.import_module("recipes.tasks.yolo")


def compile_arguments(recipe, dataset):
    return {
        "box_loss": "ciou",
        "classification_loss": "binary_crossentropy",
        "classification_loss_weight": CLASSIFICATION_WEIGHT * dataset.classes,
    }


def precision_scores(model, batches, dataset):
    """The mean average precisions of a model."""
    predictions = predicted(model, batches.map(lambda images, labels: images))
    return mean_average_precision(dataset.test_labels, predictions, dataset.classes)


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

    predicted_boxes = list(_annotations(predictions))
    if not predicted_boxes:
        return {"map_50": 0.0, "map": 0.0}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(len(labels["boxes"]))],
        "categories": [{"id": category} for category in range(classes)],
        "annotations": list(_annotations(labels)),
    }
    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(predicted_boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map_50": float(evaluation.stats[1]), "map": float(evaluation.stats[0])}


def _annotations(labels):
    """Yields what COCO's format says of each box."""
    boxes = np.argwhere(labels["classes"] >= 0).tolist()
    for number, (image, place) in enumerate(boxes, 1):
        left, top, right, bottom = labels["boxes"][image, place].tolist()
        width, height = right - left, bottom - top
        annotation = {
            "id": number,
            "image_id": image,
            "category_id": int(labels["classes"][image, place]),
            "bbox": [left, top, width, height],
            "area": width * height,
            "iscrowd": 0,
        }
        if "confidence" in labels:
            annotation["score"] = float(labels["confidence"][image, place])
        yield annotation


def predicted(model, images):
    """Predicted boxes with their classes and confidence, a dict of arrays; for their
    shapes see `mean_average_precision`."""
    outputs = model.predict(images, verbose=0)
    return {key: np.asarray(outputs[key]) for key in ("boxes", "classes", "confidence")}


def draw(model, dataset, path):
    """Draws some test images with the boxes of the labels, white, and predicted boxes,
    red."""
    images, labels = dataset.test_images[:PICTURES], dataset.test_labels
    predictions = predicted(model, images)
    # Images of one channel become RGB.
    drawn = np.tile(images, 3 // images.shape[-1])
    for number, picture in enumerate(drawn):
        is_box = labels["classes"][number] >= 0
        is_sure = predictions["confidence"][number] >= DRAWN_CONFIDENCE
        for edges in labels["boxes"][number][is_box]:
            _outline(picture, edges, WHITE)
        for edges in predictions["boxes"][number][is_sure]:
            _outline(picture, edges, RED)
    keras.visualization.plot_image_gallery(drawn, path=path, dpi=110)


def _outline(picture, edges, color):
    """Draws a box into an image."""
    height, width, _ = picture.shape
    limits = [width - 1, height - 1, width - 1, height - 1]
    left, top, right, bottom = np.clip(np.round(edges), 0, limits).astype(int)
    picture[[top, bottom], left : right + 1] = color
    picture[top : bottom + 1, [left, right]] = color


DETECTION = Task(
    score="map_50",
    check_packages=check_packages,
    compile_arguments=compile_arguments,
    further_scores=precision_scores,
    draw=draw,
    several_devices=False,
)
