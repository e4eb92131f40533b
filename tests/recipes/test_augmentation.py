"""Augmentation against Pillow, and against its probability distributions.

It runs in TensorFlow for every backend, and must give the same results with each.
"""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from recipes import augmentation, batches
from recipes.augmentation.auto_augment import (
    CIFAR10_POLICY,
    OPERATIONS,
    auto_augment,
)
from recipes.data.resizing import resized_center

pytestmark = pytest.mark.runs_once

SIZE = 32
PHOTOGRAPHS = [
    Image.fromarray(photograph) for photograph in load_sample_images().images
]


def pixels(picture):
    return np.array(picture).astype("float32")


def different_pixels(height, width, channels=1):
    """An image with distinct values, from 1, so that each can be followed."""
    return 1 + np.arange(height * width * channels, dtype="float32").reshape(
        height, width, channels
    )


def augmented(augment, image, samples, seeds=(0,)):
    """Samples of one image for each of `seeds`, by a `tf.data` pipeline: an array."""
    pairs = [(seed, number) for seed in seeds for number in range(samples)]
    data = tf.data.Dataset.from_tensor_slices(np.array(pairs)).map(
        lambda pair: augment(tf.constant(image), pair),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # A network must know the shape of its images before there are any.
    assert data.element_spec.shape.is_fully_defined()
    return next(iter(data.batch(len(pairs)))).numpy()


# AutoAugment


@pytest.mark.parametrize("number", range(0, len(CIFAR10_POLICY), 3))
def test_both_steps_of_a_sub_policy_are_applied_in_each_direction(number):
    steps = [(name, 1.0, level) for name, _, level in CIFAR10_POLICY[number]]
    picture = PHOTOGRAPHS[0].resize((SIZE, SIZE))
    pictures = [picture]
    for name, _, level in steps:
        function, directions = OPERATIONS[name]
        strengths = [float(np.float32(row[level])) for row in directions]
        pairs = itertools.product(pictures, strengths)
        pictures = [function(before, strength) for before, strength in pairs]
    results = augmented(auto_augment([steps]), pixels(picture), 40)
    expected = {pixels(picture).tobytes() for picture in pictures}
    assert {result.tobytes() for result in results} == expected


# Images and event frames


def test_the_center_crop_for_evaluation_matches_pillow():
    long = 256 * 640 // 427
    expected = PHOTOGRAPHS[0].resize((long, 256), Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in expected.size)
    expected = pixels(expected.crop((left, top, left + 224, top + 224)))
    result = resized_center(tf.constant(np.array(PHOTOGRAPHS[0]))).numpy()
    # Pillow rounds after each of the two directions.
    np.testing.assert_allclose(result, expected, atol=1.5)


def test_all_frames_of_events_move_together():
    frames = different_pixels(4 * 12, 12, 2).reshape(4, 12, 12, 2)
    expected, moves = {}, range(-5, 6)
    for flip, y, x in itertools.product((1, -1), moves, moves):
        moved = np.roll(frames[:, :, ::flip], (y, x), axis=(1, 2))
        expected[moved.tobytes()] = flip, y, x
    augment = augmentation.image_function("cifar10_dvs")
    seen = [expected[one.tobytes()] for one in augmented(augment, frames, 3000)]
    assert len(set(seen)) == 2 * 11 * 11
    assert 1300 < sum(flip == -1 for flip, _, _ in seen) < 1700


def test_counts_of_events_are_dropped_in_four_ways():
    frames = 1 + different_pixels(5 * 12, 12, 2).reshape(5, 12, 12, 2)
    seen = collections.Counter()
    for result in augmented(augmentation.image_function("event_drop"), frames, 800):
        left = result != 0
        np.testing.assert_array_equal(result[left], frames[left])
        assert left.any()
        lost = ~left
        area = [lost.any(axis).sum() for axis in ((0, 2, 3), (0, 1, 3))]
        of_frames = lost.reshape(5, -1)
        if left.all():
            seen["nothing"] += 1
        elif (of_frames.all(1) == of_frames.any(1)).all():
            seen["span"] += 1
        elif lost.sum() == 5 * 2 * np.prod(area):
            seen["area"] += 1
        else:
            seen["anywhere"] += 1
            assert 0.05 < lost.mean() < 0.95
    # A span or an area may lie between two frames or pixels.
    assert seen["nothing"] > 0.2 * 800
    assert min(seen.values()) > 0.17 * 800, seen


def test_of_spoken_words_a_span_and_a_band_are_left_out_and_spikes_added():
    steps = np.full((40, 30), 2.0, "float32")
    augment = augmentation.image_function("spoken_words")
    spans, bands, added = [], [], []
    for result in augmented(augment, steps, 400):
        assert set(np.unique(result)) <= {0.0, 1.0, 2.0, 3.0}
        span, band = (_only_run((result < 2).all(axis)) for axis in (1, 0))
        assert (result < 2).sum() == span * 30 + band * 40 - span * band
        spans.append(span)
        bands.append(band)
        added.append(np.isin(result, (1, 3)).mean())
    assert (min(spans), max(spans), min(bands), max(bands)) == (0, 8, 0, 6)
    assert 0.003 < np.mean(added) < 0.007
    assert max(added) < 0.02


def _only_run(masked):
    """The number of places that are true, which are neighbours."""
    places = np.flatnonzero(masked)
    assert (np.diff(places) == 1).all()
    return len(places)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("cifar10", (28, 28, 1), r"three channels.*\(28, 28, 1\)"),
        ("cifar10_dvs", (4, 4), r"height, width, channels\), not for \(4, 4\)"),
        ("event_drop", (4, 4), r"height, width, channels\), not for \(4, 4\)"),
        ("spoken_words", (4, 4, 2), r"is for steps \(time, channels\)"),
    ],
)
def test_augmentations_say_what_they_are_for(name, shape, said):
    with pytest.raises(ValueError, match=said):
        augmentation.image_function(name)(tf.zeros(shape), (0, 0))


# Mixes and layers


def by_layer(name, images, labels, seed=1):
    """Images and labels after a new layer, in `tf.data` as in a pipeline."""
    examples = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
    mapped = examples.batch(len(images)).map(augmentation.layer(name)(seed))
    (result,) = mapped.as_numpy_iterator()
    return result["images"], result["labels"]


@pytest.fixture
def batch():
    """Constant images of values 0 to 127, with their indices as labels."""
    values = np.arange(128, dtype="float32")[:, None, None, None]
    return tf.constant(np.broadcast_to(values, (128, 50, 40, 3))), tf.eye(128)


@pytest.mark.parametrize("mix", augmentation.MIXES[1:])
def test_mixes_weight_labels_by_pixels_and_keep_their_sum(mix, batch):
    images, labels = by_layer(mix, *batch)
    assert images.shape == (128, 50, 40, 3)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert labels.min() >= 0
    # The value of an image is its label: pixels and labels must have the same mean.
    # The box of CutMix is between pixels.
    atol = 1e-3 if mix == "mixup" else 127 * (1 / 50 + 1 / 40)
    means = images.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, labels @ np.arange(128), rtol=1e-4, atol=atol)
    assert (labels > 0).sum(axis=1).max() == 2
    # A share for each image, not for the batch.
    assert len(np.unique(np.diag(labels))) > 15


def test_cutmix_in_time_has_one_span_of_steps_of_another_sequence(batch):
    sequences, labels = by_layer("cutmix_in_time", *batch)
    lengths = []
    for number, sequence in enumerate(sequences):
        differs = (sequence != number).reshape(50, -1)
        mixed = differs.all(axis=1)
        assert (mixed == differs.any(axis=1)).all()
        lengths.append(_only_run(mixed))
        assert len(np.unique(sequence[mixed])) <= 1
        share = 1 - mixed.mean()
        assert labels[number, number] == pytest.approx(share, abs=1e-6)
    assert min(lengths) < 5
    assert max(lengths) > 45


@pytest.mark.parametrize("name", ["cutout", "grid_mask"])
def test_new_layers_of_the_same_seed_draw_the_same(name):
    images = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3))
    given = name, images.astype("float32"), tf.eye(16)
    first, again, reseeded = (by_layer(*given, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != reseeded).any()
    assert 0.01 < (first == 0).mean() < 0.9
    # Each seed of a run, epoch and use has its own.
    numbers = itertools.product(range(3), repeat=3)
    assert len({batches.seed_of_layer(*triple) for triple in numbers}) == 27


# Seeds


DRAWN = {
    "cifar10": (103.3708, 5144.609),
    "cifar100": (103.5984, 5155.623),
    "cifar10_dvs": (116.3333, 5815.067),
    "event_drop": (105.2324, 5261.296),
    "fashion_mnist": (108.1610, 5406.969),
    "fashion_mnist_cutout": (106.0619, 5301.171),
    "imagenet": (120.5725, 6028.691),
    "spoken_words": (99.4946, 4972.883),
}
"""Mean, and mean with weights that tell places apart, of 50 samples, as they were when
probabilities, crops and boxes were compared with those of their authors and of
torchvision."""


@pytest.mark.parametrize("name", augmentation.BY_NAME)
def test_every_backend_and_machine_draws_the_same(name):
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    image = np.stack([rows * 8, columns * 8, (rows * columns) % 256], axis=-1)
    image = image.astype("float32")
    if name in ("cifar10_dvs", "event_drop"):
        image = image[np.newaxis]
    elif name == "spoken_words":
        image = image[..., 0]
    results = augmented(augmentation.image_function(name), image, 50).astype("float64")
    weights = np.arange(results.size).reshape(results.shape) % 101
    means = results.mean(), (results * weights).mean()
    np.testing.assert_allclose(means, DRAWN[name], rtol=1e-5)
