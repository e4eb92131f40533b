"""keras-cv's YOLOv8 in a form that converts well to spikes. Import it only where
keras-cv is installed."""

import contextlib

import keras
import keras_cv
import numpy as np

FIRST_SCORE = 0.01
"""The score of each class with which an untrained detector starts: most places have no
object."""

FIRST_DISTANCE = 1.5
"""About the distance of a box's edges from its anchor with which an untrained detector
starts, in strides."""


@keras.saving.register_keras_serializable("recipes")
class ReLUDetector(keras_cv.models.YOLOV8Detector):
    """A `YOLOV8Detector` with ReLUs instead of swish, which returns the logits of the
    classes.

    Calibrated neurons are a rounded ReLU, whereas swish differs from it where most
    inputs are. A spiking network returns the mean over time of its outputs, and the
    mean of logits converts better than the mean of sigmoids, which are nearly 0 or 1 at
    each step. The loss and the decoding are those of keras-cv, on the sigmoids of the
    logits.

    An untrained `YOLOV8Detector` predicts boxes of 15 strides. In small images they
    hardly overlap those of the labels, which count in the loss by this overlap, so
    learning is slow. Here the initial biases of the last convolutions give boxes of
    about three strides, and small scores.

    Args:
        *args: As in `YOLOV8Detector`.
        **kwargs: As in `YOLOV8Detector`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # keras-cv has no argument for them. The layers of the graph call what their
        # attribute says.
        for layer in self.layers:
            if isinstance(layer, keras.layers.Activation):
                layer.activation = REPLACED.get(layer.activation, layer.activation)
        for level in LEVELS:
            boxes, classes = (
                self.get_layer(f"yolo_v8_head_{level}_{part}_3_conv").bias
                for part in ("box", "class")
            )
            # Each edge is the mean of its bins 0, 1, ... with the softmax of its logits
            # as weights.
            bins = np.arange(boxes.shape[0] // EDGES)
            boxes.assign(np.tile(-np.log1p(1 / FIRST_DISTANCE) * bins, EDGES))
            classes.assign(
                np.full(classes.shape, np.log(FIRST_SCORE / (1 - FIRST_SCORE)))
            )

        # In half precision keras-cv's loss and decoding mix dtypes.
        self.label_encoder.dtype_policy = "float32"

    def compute_loss(self, x, y, y_pred, sample_weight=None, **kwargs):
        with _in_float32():
            return super().compute_loss(
                x, y, _with_scores(y_pred), sample_weight, **kwargs
            )

    def decode_predictions(self, pred, images):
        with _in_float32():
            return super().decode_predictions(_with_scores(pred), images)


EDGES = 4
LEVELS = 1, 2, 3
"""The levels of the feature pyramid, as in the names of keras-cv's layers."""

REPLACED = {
    keras.activations.silu: keras.activations.relu,
    keras.activations.sigmoid: keras.activations.linear,
}


@contextlib.contextmanager
def _in_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _with_scores(outputs):
    wide = {name: keras.ops.cast(output, "float32") for name, output in outputs.items()}
    return {**wide, "classes": keras.ops.sigmoid(wide["classes"])}
