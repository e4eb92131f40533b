"""Augmentation: what it draws, mixes and moves.

It runs in TensorFlow for every backend, and must give the same results with each.
"""

import numpy as np
import pytest
import tensorflow as tf

from recipes import augmentation

SIZE = 32


def augmented(augment, image, samples):
    """Samples of one image by a `tf.data` pipeline: an array."""
    data = tf.data.Dataset.range(samples).map(
        lambda number: augment(tf.constant(image), tf.stack([0, number])),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # A network must know the shape of its images before there are any.
    assert data.element_spec.shape.is_fully_defined()
    return next(iter(data.batch(samples))).numpy()


def test_all_frames_of_events_move_together():
    frame = 1 + np.arange(12 * 12 * 2, dtype="float32").reshape(12, 12, 2)
    frames = np.stack([frame, frame + 1000])
    results = augmented(augmentation.image_function("cifar10_dvs"), frames, 300)
    np.testing.assert_array_equal(results[:, 1], results[:, 0] + 1000)
    # Flipped or not, and moved by -5 to 5 pixels along each axis.
    assert 150 < len({result.tobytes() for result in results}) <= 2 * 11 * 11


DRAWN = {
    "cifar10": (103.3708, 5144.609),
    "cifar100": (103.5984, 5155.623),
    "cifar10_dvs": (116.3333, 5815.067),
    "fashion_mnist": (108.1610, 5406.969),
    "fashion_mnist_cutout": (106.0619, 5301.171),
    "imagenet": (120.5725, 6028.691),
}
"""Mean, and mean with weights that tell places apart, of 50 samples, as they were when
probabilities, crops and boxes were compared with those of their authors and of
torchvision."""


@pytest.mark.parametrize("name", augmentation.IMAGE_FUNCTIONS)
def test_every_backend_and_machine_draws_the_same(name):
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    image = np.stack([rows * 8, columns * 8, (rows * columns) % 256], axis=-1)
    image = image.astype("float32")
    if name == "cifar10_dvs":
        image = image[np.newaxis]
    results = augmented(augmentation.image_function(name), image, 50).astype("float64")
    weights = np.arange(results.size).reshape(results.shape) % 101
    means = results.mean(), (results * weights).mean()
    np.testing.assert_allclose(means, DRAWN[name], rtol=1e-5)
