"""Segmentation: the class of each pixel."""

import keras
import numpy as np

from recipes import plots
from recipes.tasks import pictures
from recipes.tasks.task import Task


def compile_arguments(recipe, dataset):
    # An argmax is the same of logits and of probabilities.
    overlap = keras.metrics.MeanIoU(dataset.classes, sparse_y_pred=False, name="mean_iou")
    return {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": [overlap]}


def draw(model, dataset, path):
    """Draws some test images, the classes of their pixels, and the predicted classes."""
    images = dataset.test_images[: pictures.IMAGES // 3]
    found = np.argmax(model.predict(images, verbose=0), axis=-1)
    rows = (images, dataset.test_labels[: len(images)], found)
    axes, figure = pictures.grid([image for row in rows for image in row], columns=len(images))
    for number, axis in enumerate(axes):
        axis.set_title(("image", "labels", "predicted")[number // len(images)], fontsize=6)
    pictures.save(figure, path)


SEGMENTATION = Task(score="mean_iou", check_packages=plots.check_installed, compile_arguments=compile_arguments, draw=draw)
