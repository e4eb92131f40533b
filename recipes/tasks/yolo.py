"""keras-cv's YOLOv8 in a form that converts well to spikes. Import it only where keras-cv is installed."""

import keras
import keras_cv


@keras.saving.register_keras_serializable("recipes")
class ReLUDetector(keras_cv.models.YOLOV8Detector):
    """A `YOLOV8Detector` with ReLUs instead of swish, which returns the logits of the classes.

    Calibrated neurons are a rounded ReLU, whereas swish differs from it where most inputs are. A spiking network returns the
    mean over time of its outputs, and the mean of logits converts better than the mean of sigmoids, which are nearly 0 or 1 at
    each step. The loss and the decoding are those of keras-cv, on the sigmoids of the logits.

    Args:
        *args: As in `YOLOV8Detector`.
        **kwargs: As in `YOLOV8Detector`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # keras-cv has no argument for them. The layers of the graph call what their attribute says.
        for layer in self.layers:
            if isinstance(layer, keras.layers.Activation):
                layer.activation = REPLACED.get(layer.activation, layer.activation)

    def compute_loss(self, x, y, y_pred, sample_weight=None, **kwargs):
        return super().compute_loss(x, y, _with_scores(y_pred), sample_weight, **kwargs)

    def decode_predictions(self, pred, images):
        return super().decode_predictions(_with_scores(pred), images)


REPLACED = {keras.activations.silu: keras.activations.relu, keras.activations.sigmoid: keras.activations.linear}


def _with_scores(outputs):
    return {**outputs, "classes": keras.ops.sigmoid(outputs["classes"])}
