"""Reader of `_bbox.npy` files: the boxes of the objects in a recording of a Prophesee
camera."""

import os

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import check_size

OLDER_NAMES = {"ts": "t", "confidence": "class_confidence"}
FIELDS = ("t", "x", "y", "w", "h", "class_id", "track_id", "class_confidence")


def read_boxes(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the boxes of a `_bbox.npy` file of the data sets Gen1 and 1 Mpx.

    Args:
        path: The file.

    Returns:
        Structured array with the fields `t` (microseconds), `x`, `y`, `w`, `h`
        (pixels), `class_id`, `track_id` and `class_confidence`. Those of older files,
        `ts` and `confidence`, are renamed.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is too large or damaged, or does not hold boxes.
    """
    path, size = checks.file("path", path)
    check_size(path, size)
    try:
        # The size of a mapped file is that of its array.
        boxes = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except OSError:
        raise
    # A damaged file fails in different places.
    except Exception as error:
        raise ValueError(
            f"NumPy cannot read {path} ({type(error).__name__}: {error}). Download it "
            "again."
        ) from error
    names = boxes.dtype.names or ()
    newer = tuple(OLDER_NAMES.get(name, name) for name in names)
    missing = [name for name in FIELDS if name not in newer]
    if missing or boxes.ndim != 1:
        held = (
            f"{', '.join(names) or 'an array without fields'}, of shape {boxes.shape}"
        )
        raise ValueError(
            f"{path} must hold one row of boxes with the fields {', '.join(FIELDS)}. "
            f"It holds: {held}."
        )
    wrong = [
        f"{name} of {boxes.dtype[name]}"
        for name in names
        if boxes.dtype[name].kind not in "iuf"
    ]
    if wrong:
        raise ValueError(
            f"{path} must hold boxes whose fields are numbers. It holds: "
            f"{', '.join(wrong)}."
        )
    boxes.dtype.names = newer
    return boxes
