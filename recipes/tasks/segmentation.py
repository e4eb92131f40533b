"""Segmentation: the class of each pixel."""

import keras
import numpy as np
from keras import ops

from recipes import plots
from recipes.tasks.task import Task

PICTURES = 4


@keras.saving.register_keras_serializable("recipes")
class MeanIoU(keras.metrics.MeanIoU):
    """Keras' metric, of which all pixels are counted at once: on PyTorch Keras counts
    one after the other, in Python."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            return super().update_state(y_true, y_pred, sample_weight)
        # An argmax is the same of logits and of probabilities.
        classes = y_true, ops.argmax(y_pred, axis=-1)
        vectors = [ops.one_hot(ops.ravel(rows), self.num_classes) for rows in classes]
        counts = ops.matmul(ops.transpose(vectors[0]), vectors[1])
        return self.total_cm.assign_add(ops.cast(counts, self.total_cm.dtype))


def compile_arguments(recipe, dataset):
    overlap = MeanIoU(dataset.classes, sparse_y_pred=False, name="mean_iou")
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [overlap],
    }


def draw(model, dataset, path):
    """Draws some test images, the classes of their pixels, and the predicted
    classes."""
    images, labels = dataset.test_images[:PICTURES], dataset.test_labels[:PICTURES]
    predictions = np.argmax(model.predict(images, verbose=0), axis=-1)
    keras.visualization.plot_segmentation_mask_gallery(
        np.tile(images, 3),
        dataset.classes,
        y_true=labels[..., np.newaxis],
        y_pred=predictions[..., np.newaxis],
        path=path,
        dpi=110,
    )


SEGMENTATION = Task(
    score="mean_iou",
    check_packages=plots.check_installed,
    compile_arguments=compile_arguments,
    draw=draw,
)
