"""A data set for detection in the format of COCO, for tests."""

import json

import numpy as np
import tensorflow as tf

SIZES = ((40, 60), (64, 64), (30, 20))
"""Heights and widths of the images of each part."""


def write_coco(folder, changes=None):
    """Images with a bright square each, of the class "dark" or "light".

    Args:
        folder: Path.
        changes: Function that changes the content of `train.json`. Defaults to `None`.
    """
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
        content = {
            "categories": [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}],
            "images": [],
            "annotations": [],
        }
        for number, (height, width) in enumerate(SIZES):
            pixels = np.zeros((height, width, 3), "uint8")
            pixels[5:15, 10:20] = 250 if number % 2 else 100
            (folder / part / f"{number}.png").write_bytes(
                tf.io.encode_png(pixels).numpy()
            )
            image = {
                "id": 10 + number,
                "file_name": f"{number}.png",
                "height": height,
                "width": width,
            }
            content["images"].append(image)
            box = {
                "image_id": image["id"],
                "category_id": 7 if number % 2 else 3,
                "bbox": [10, 5, 10, 10],
            }
            content["annotations"].append(box)
        # Left out: of a crowd, and without area.
        content["annotations"] += [{**box, "iscrowd": 1}, {**box, "bbox": [3, 3, 0, 4]}]
        for number, annotation in enumerate(content["annotations"]):
            annotation["id"] = number
        if part == "train" and changes is not None:
            changes(content)
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder
