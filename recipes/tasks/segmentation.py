"""Segmentation: the class of each pixel."""

import keras
import numpy as np
from keras import ops

from recipes import plots
from recipes.tasks import pictures
from recipes.tasks.task import Task


@keras.saving.register_keras_serializable("recipes")
class MeanIoU(keras.metrics.MeanIoU):
    """Keras' metric, of which all pixels are counted at once: on PyTorch Keras counts
    one after the other, in Python."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            return super().update_state(y_true, y_pred, sample_weight)
        # An argmax is the same of logits and of probabilities.
        labels = self._one_hot(y_true)
        predictions = self._one_hot(ops.argmax(y_pred, axis=-1))
        counts = ops.matmul(ops.transpose(labels), predictions)
        return self.total_cm.assign_add(ops.cast(counts, self.total_cm.dtype))

    def _one_hot(self, classes):
        vectors = ops.one_hot(ops.cast(classes, "int32"), self.num_classes)
        return ops.reshape(vectors, (-1, self.num_classes))


def compile_arguments(recipe, dataset):
    overlap = MeanIoU(dataset.classes, sparse_y_pred=False, name="mean_iou")
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [overlap],
    }


def draw(model, dataset, path):
    """Draws some test images, the classes of their pixels, and the predicted
    classes."""
    images = dataset.test_images[: pictures.IMAGES // 3]
    predictions = np.argmax(model.predict(images, verbose=0), axis=-1)
    rows = (images, dataset.test_labels[: len(images)], predictions)
    axes, figure = pictures.grid(
        [image for row in rows for image in row], columns=len(images)
    )
    for number, axis in enumerate(axes):
        axis.set_title(
            ("image", "labels", "predicted")[number // len(images)], fontsize=6
        )
    pictures.save(figure, path)


SEGMENTATION = Task(
    score="mean_iou",
    check_packages=plots.check_installed,
    compile_arguments=compile_arguments,
    draw=draw,
)
