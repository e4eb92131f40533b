"""Mean average precision of boxes, by COCO's own evaluation in pycocotools."""

import contextlib
import io

import numpy as np


def mean_average_precision(labels, predictions, classes):
    """The mean over classes of the average precision.

    Args:
        labels: Dict of `"boxes"`, an array `(images, boxes, 4)` of left, top, right and bottom edges in pixels, and
            `"classes"`, `(images, boxes)`, -1 where there is no box.
        predictions: Likewise, and with `"confidence"`, `(images, boxes)`.
        classes: Integer, the number of classes.

    Returns:
        Dict of floats: `"map_50"`, where a box is right if its intersection over union with a box of the labels is at least
        0.5; and `"map"`, the mean for 0.5, 0.55, ..., 0.95.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = [
        {"image_id": image, "category_id": category, "bbox": box, "score": float(predictions["confidence"][image, place])}
        for image, place, category, box in _boxes(predictions)
    ]
    if not found:
        return {"map_50": 0.0, "map": 0.0}
    expected = [
        {"id": 1 + number, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
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
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map_50": float(evaluation.stats[1]), "map": float(evaluation.stats[0])}


def _boxes(labels):
    """Yields image, place, class and `[left, top, width, height]` of each box."""
    for image, place in np.argwhere(labels["classes"] >= 0).tolist():
        left, top, right, bottom = labels["boxes"][image, place].tolist()
        yield image, place, int(labels["classes"][image, place]), [left, top, right - left, bottom - top]
