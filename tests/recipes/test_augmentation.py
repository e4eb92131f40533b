"""Augmentation against Pillow, which defines the operations of AutoAugment, and against
its probability distributions.

It runs in TensorFlow for every backend, and must give the same results with each.
"""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from recipes import augmentation, augmentation_sheet
from recipes.augmentation import layers
from recipes.augmentation.auto_augment import (
    CIFAR10_POLICY,
    NOTHING,
    auto_augment,
    draw_steps,
)
from recipes.augmentation.data_sets import (
    compose,
    cutout,
    random_crop,
    random_flip,
    random_part,
    random_resized_crop,
    random_roll,
)
from recipes.augmentation.operations import OPERATIONS
from recipes.data.resizing import resized_center
from tests.recipes.made_clothes import write_clothes

pytestmark = pytest.mark.runs_once

SIZE = 32
PHOTOGRAPHS = [
    Image.fromarray(photograph) for photograph in load_sample_images().images
]
NOISE = np.random.default_rng(0).integers(40, 210, (SIZE, SIZE, 3)).astype("uint8")
PICTURES = [
    *(photograph.resize((SIZE, SIZE)) for photograph in PHOTOGRAPHS),
    Image.fromarray(NOISE),
]
"""Two photographs, and noise without the darkest and brightest values."""

DIRECTIONS = (1, -1)
ROUNDING = 0.002
"""The share of values that may differ from Pillow's.

Pillow's coordinates are in steps of 1/65536 and those here in float32: where one is
just between two pixels it may go the other way. Measured: at most 1 pixel of 1024 after
a rotation, and none after all else that the policy does.
"""


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


def assert_near_share(count, draws, share):
    """Five standard deviations, which a correct run exceeds once in two million
    times."""
    assert abs(count - share * draws) <= 5 * np.sqrt(draws * share * (1 - share)), (
        f"{count} of {draws}, not {share:.2%}"
    )


# AutoAugment


def by_pillow(picture, name, level, sign):
    """The operations of torchvision's AutoAugment on Pillow images."""
    share = sign * level / 9
    width, height = picture.size

    def moved(*matrix):
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST
        )

    def enhanced(enhancement):
        return enhancement(picture).enhance(1 + 0.9 * share)

    operations = {
        "ShearY": lambda: moved(1, 0, 0, 0.3 * share, 1, 0),
        "TranslateX": lambda: moved(1, 0, -int(150 / 331 * width * share), 0, 1, 0),
        "TranslateY": lambda: moved(1, 0, 0, 0, 1, -int(150 / 331 * height * share)),
        "Rotate": lambda: picture.rotate(30 * share, Image.Resampling.NEAREST),
        "Color": lambda: enhanced(ImageEnhance.Color),
        "Contrast": lambda: enhanced(ImageEnhance.Contrast),
        "Brightness": lambda: enhanced(ImageEnhance.Brightness),
        "Sharpness": lambda: enhanced(ImageEnhance.Sharpness),
        "Posterize": lambda: ImageOps.posterize(picture, 8 - round(4 * level / 9)),
        "Solarize": lambda: ImageOps.solarize(picture, 256 - 256 * level / 9),
        "Invert": lambda: ImageOps.invert(picture),
        "AutoContrast": lambda: ImageOps.autocontrast(picture),
        "Equalize": lambda: ImageOps.equalize(picture),
    }
    return operations[name]()


def certain(steps):
    return [(name, 1.0, level) for name, _, level in steps]


@pytest.mark.parametrize("number", range(len(CIFAR10_POLICY)))
def test_sub_policies_match_pillow(number):
    (first, _, first_level), (second, _, second_level) = CIFAR10_POLICY[number]
    signs = [DIRECTIONS[: len(OPERATIONS[name].strengths)] for name in (first, second)]
    augment = auto_augment([certain(CIFAR10_POLICY[number])])
    for picture in PICTURES:
        expected = np.unique(
            [
                pixels(
                    by_pillow(
                        by_pillow(picture, first, first_level, a),
                        second,
                        second_level,
                        b,
                    )
                )
                for a in signs[0]
                for b in signs[1]
            ],
            axis=0,
        )
        missing = set(range(len(expected)))
        for seed in range(40):
            result = augment(tf.constant(pixels(picture)), (number, seed)).numpy()
            wrong = np.mean(result != expected, axis=(1, 2, 3))
            assert wrong.min() <= ROUNDING
            missing.discard(int(wrong.argmin()))
            if not missing:
                break
        assert not missing


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (37, 50)])
def test_operations_match_pillow_with_few_levels(name, shape):
    generator = np.random.default_rng(1)
    images = [
        np.full((*shape, 3), 77),
        np.where(generator.random((*shape, 3)) < 0.1, 12, 203),
        generator.integers(0, 256, (*shape, 3)),
    ]
    for image in images:
        for sign, strengths in zip(
            DIRECTIONS, OPERATIONS[name].strengths, strict=False
        ):
            # No slope or angle of level 7 hits the middle between two pixels.
            expected = pixels(
                by_pillow(Image.fromarray(image.astype("uint8")), name, 7, sign)
            )
            result = OPERATIONS[name].function(
                tf.constant(image, tf.float32), tf.constant(strengths[7], tf.float32)
            )
            assert np.mean(result.numpy() != expected) <= ROUNDING


def test_sub_policies_and_their_steps_have_the_right_probabilities():
    draws = 40_000
    seeds = tf.stack([tf.zeros(draws, tf.int32), tf.range(draws)], axis=1)
    spec = (tf.TensorSpec((2,), tf.int32), tf.TensorSpec((2,), tf.float32))
    draw = tf.function(
        lambda: tf.map_fn(
            lambda seed: draw_steps(CIFAR10_POLICY, seed),
            seeds,
            fn_output_signature=spec,
        )
    )
    numbers, strengths = (result.numpy() for result in draw())
    names = [*OPERATIONS, "nothing"]
    for step in (0, 1):
        expected = collections.Counter()
        for steps in CIFAR10_POLICY:
            name, probability, level = steps[step]
            directions = OPERATIONS[name].strengths
            for strengths_by_level in directions:
                strength = round(float(strengths_by_level[level]), 4)
                expected[name, strength] += (
                    probability / len(directions) / len(CIFAR10_POLICY)
                )
        seen = collections.Counter(
            (names[number], round(float(strength), 4))
            for number, strength in zip(
                numbers[:, step], strengths[:, step], strict=True
            )
            if number != NOTHING
        )
        assert seen.keys() == {key for key, share in expected.items() if share}
        for key, share in expected.items():
            assert_near_share(seen[key], draws, share)


def test_steps_and_their_directions_are_drawn_independently():
    image = np.ones((SIZE, SIZE, 3), "float32")
    policy = [(("TranslateX", 0.3, 9), ("TranslateY", 0.6, 9))]
    draws = 2000
    results = augmented(auto_augment(policy), image, draws)[..., 0]
    # The edge that became black tells the direction.
    columns, rows = results.max(axis=1), results.max(axis=2)
    seen = collections.Counter(
        zip(*(side[:, 0] - side[:, -1] for side in (columns, rows)), strict=True)
    )
    for sideways, sideways_share in ((0, 0.7), (1, 0.15), (-1, 0.15)):
        for upright, upright_share in ((0, 0.4), (1, 0.3), (-1, 0.3)):
            assert_near_share(
                seen[sideways, upright], draws, sideways_share * upright_share
            )


def test_auto_augment_returns_integers_in_the_range_of_pixels():
    results = augmented(auto_augment(), pixels(PICTURES[0]), 300)
    np.testing.assert_array_equal(results, np.round(results))
    assert results.min() >= 0
    assert results.max() <= 255
    assert len(np.unique(results.sum(axis=(1, 2, 3)))) > 30


def test_auto_augment_needs_three_colors():
    with pytest.raises(ValueError, match=r"three channels.*\(28, 28, 1\)"):
        auto_augment()(tf.zeros((28, 28, 1)), (0, 0))


# Crops


def test_crops_have_all_offsets_and_differ_between_images():
    image = different_pixels(8, 6)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    windows = {
        padded[y : y + 8, x : x + 6].tobytes(): (y, x)
        for y in range(9)
        for x in range(9)
    }
    samples = 3000
    places = collections.Counter(
        windows[result.tobytes()]
        for result in augmented(random_crop(4), image, samples)
    )
    assert len(places) == 81
    for count in places.values():
        assert_near_share(count, samples, 1 / 81)


def test_random_parts_respect_their_limits_and_distributions():
    height, width = 300, 400
    draws = 4000
    seeds = tf.stack([tf.zeros(draws, tf.int32), tf.range(draws)], axis=1)
    area, ratio = (0.08, 1.0), (3 / 4, 4 / 3)

    @tf.function
    def parts():
        return tf.map_fn(
            lambda seed: tf.stack(random_part(height, width, seed, area, ratio)), seeds
        )

    tops, lefts, heights, widths = parts().numpy().T
    assert min(tops.min(), lefts.min()) >= 0
    assert (tops + heights).max() <= height
    assert (lefts + widths).max() <= width
    areas, ratios = heights * widths / (height * width), widths / heights
    # Sides are rounded to whole pixels.
    assert 0.079 < areas.min() < 0.09
    assert 0.95 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.76
    assert 1.32 < ratios.max() < 1.35
    # Up to areas that always fit, areas and logarithms of ratios are uniform.
    small = (areas > 0.1) & (areas < 0.5)
    assert_near_share((areas[small] < 0.3).sum(), small.sum(), 0.5)
    assert_near_share((ratios[small] < 1).sum(), small.sum(), 0.5)


@pytest.mark.parametrize(
    ("shape", "expected"), [((20, 400), (20, 27)), ((400, 20), (27, 20))]
)
def test_long_images_are_center_cropped(shape, expected):
    # An area of nearly all of it would be higher or wider than the image.
    top, left, height, width = (
        int(number)
        for number in random_part(*shape, (0, 0), (0.9, 1.0), (3 / 4, 4 / 3))
    )
    assert (height, width) == expected
    assert (top, left) == tuple(
        (size - part) // 2 for size, part in zip(shape, expected, strict=True)
    )


def test_a_resized_crop_is_a_part_of_its_image():
    # A picture that says where its pixels were: in the result they must rise evenly.
    rows, columns = np.meshgrid(np.arange(200.0), np.arange(200.0), indexing="ij")
    image = np.stack([rows, columns], axis=-1).astype("float32")
    results = augmented(random_resized_crop(50), image, 40)
    assert results.shape == (40, 50, 50, 2)
    inner = results[:, 5:-5, 5:-5]
    even = np.linspace(inner[:, 0, 0], inner[:, -1, -1], 40, axis=1)
    np.testing.assert_allclose(
        inner[..., 0], np.broadcast_to(even[:, :, None, 0], inner.shape[:-1]), atol=0.5
    )
    np.testing.assert_allclose(
        inner[..., 1], np.broadcast_to(even[:, None, :, 1], inner.shape[:-1]), atol=0.5
    )
    heights, widths = ((even[:, -1] - even[:, 0]) * 50 / 39).T
    assert len(np.unique(heights.round())) > 10
    assert np.all((widths / heights > 0.7) & (widths / heights < 1.4))
    assert np.all(
        (widths * heights > 0.07 * 200**2) & (widths * heights < 1.02 * 200**2)
    )


def test_images_of_any_size_become_one_batch():
    sizes = ((300, 200), (100, 400))
    spec = tf.TensorSpec((None, None, 3), tf.float32)
    data = tf.data.Dataset.from_generator(
        lambda: (np.zeros((*size, 3), "float32") for size in sizes),
        output_signature=spec,
    )
    for function in (
        resized_center,
        lambda image: augmentation.of_images("imagenet")(image, (0, 1)),
    ):
        batches = data.map(function).batch(2)
        assert batches.element_spec.shape == (None, 224, 224, 3)
        assert next(iter(batches)).shape == (2, 224, 224, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_the_center_crop_for_evaluation_matches_pillow(turned):
    photograph = PHOTOGRAPHS[0].rotate(90, expand=True) if turned else PHOTOGRAPHS[0]
    long = 256 * 640 // 427
    expected = photograph.resize(
        (256, long) if turned else (long, 256), Image.Resampling.BILINEAR
    )
    left, top = ((side - 224) // 2 for side in expected.size)
    expected = pixels(expected.crop((left, top, left + 224, top + 224)))
    result = resized_center(tf.constant(np.array(photograph))).numpy()
    assert result.dtype == np.float32
    # Pillow rounds after each of the two directions.
    np.testing.assert_allclose(result, expected, atol=1.5)


# Flip, Cutout, event frames


def test_half_of_the_images_are_flipped():
    image = different_pixels(3, 4, 2)
    results = augmented(random_flip, image, 2000)
    flipped = np.all(results == image[:, ::-1], axis=(1, 2, 3))
    assert np.all(flipped | np.all(results == image, axis=(1, 2, 3)))
    assert_near_share(flipped.sum(), 2000, 0.5)


def test_cutout_hides_a_square_in_the_mean_color_wherever_its_center_is():
    image = np.zeros((24, 20, 3), "float32")
    color = (125.3, 123.0, 113.9)
    samples = 5000
    results = augmented(cutout(8, color), image, samples)
    hidden = results[..., 0] != 0
    np.testing.assert_array_equal(
        results[hidden],
        np.broadcast_to(np.array(color, "float32"), results[hidden].shape),
    )
    assert not results[~hidden].any()
    squares = {}
    for y in range(24):
        for x in range(20):
            mask = np.zeros((24, 20), bool)
            mask[max(y - 4, 0) : y + 4, max(x - 4, 0) : x + 4] = True
            squares[mask.tobytes()] = (y, x)
    centers = np.array([squares[mask.tobytes()] for mask in hidden])
    assert len(np.unique(centers, axis=0)) == 24 * 20
    inside = np.all((centers >= 4) & (centers <= (24 - 4, 20 - 4)), axis=1)
    assert np.all(hidden[inside].sum(axis=(1, 2)) == 64)
    # 17 x 13 of 24 x 20 centres.
    assert_near_share(inside.sum(), samples, 17 * 13 / (24 * 20))


def test_cutout_of_cifar_is_of_16_pixels_and_of_the_mean():
    results = augmented(
        augmentation.of_images("cifar10"), np.zeros((SIZE, SIZE, 3), "float32"), 400
    )
    # Of black nothing else makes the colours of the mean.
    hidden = np.isclose(results, (125.3, 123.0, 113.9)).all(axis=-1).sum(axis=(1, 2))
    assert hidden.max() == 16 * 16
    assert hidden.min() >= 8 * 8
    assert 0.2 < np.mean(hidden == 16 * 16) < 0.4


def test_all_frames_of_events_move_together():
    frames = different_pixels(4 * 12, 12, 2).reshape(4, 12, 12, 2)
    expected = {}
    for flipped, image in ((False, frames), (True, frames[:, :, ::-1])):
        for y in range(-5, 6):
            for x in range(-5, 6):
                expected[np.roll(image, (y, x), axis=(1, 2)).tobytes()] = (
                    flipped,
                    y,
                    x,
                )
    seen = collections.Counter(
        expected[result.tobytes()]
        for result in augmented(augmentation.of_images("cifar10_dvs"), frames, 3000)
    )
    assert len(seen) == 2 * 11 * 11
    assert_near_share(
        sum(count for (flipped, _, _), count in seen.items() if flipped), 3000, 0.5
    )


def test_counts_of_events_are_dropped_in_four_ways():
    frames = 1 + different_pixels(5 * 12, 12, 2).reshape(5, 12, 12, 2)
    seen = collections.Counter()
    for result in augmented(augmentation.of_images("event_drop"), frames, 800):
        kept = result != 0
        np.testing.assert_array_equal(result[kept], frames[kept])
        assert kept.any()
        rows, columns = (
            np.flatnonzero((~kept).any(axis)) for axis in ((0, 2, 3), (0, 1, 3))
        )
        if kept.all():
            seen["nothing"] += 1
        elif ((of_frame := kept.reshape(5, -1)).all(1) | ~of_frame.any(1)).all():
            seen["span"] += 1
        elif (~kept).sum() == 5 * len(rows) * len(columns) * 2:
            seen["area"] += 1
        else:
            seen["anywhere"] += 1
            assert 0.05 < 1 - kept.mean() < 0.95
    # A span or an area may lie between two frames or pixels.
    assert seen["nothing"] > 0.2 * 800
    for way in ("span", "area", "anywhere"):
        assert seen[way] > 0.17 * 800, seen


def test_of_spoken_words_a_span_and_a_band_are_left_out_and_spikes_added():
    steps = np.full((40, 30), 2.0, "float32")
    spans, bands, added = [], [], []
    for result in augmented(augmentation.of_images("spoken_words"), steps, 400):
        assert set(np.unique(result)) <= {0.0, 1.0, 2.0, 3.0}
        spans.append(_only_run((result < 2).all(axis=1)))
        bands.append(_only_run((result < 2).all(axis=0)))
        added.append(np.isin(result, (1, 3)).mean())
        assert (result < 2).sum() == spans[-1] * 30 + bands[-1] * 40 - spans[
            -1
        ] * bands[-1]
    assert (max(spans), max(bands)) == (8, 6)
    assert min(spans) == min(bands) == 0
    assert 0.003 < np.mean(added) < 0.007
    assert max(added) < 0.02
    with pytest.raises(
        ValueError, match=r"spoken_words is for steps \(time, channels\)"
    ):
        augmentation.of_images("spoken_words")(tf.zeros((4, 4, 2)), (0, 0))


def _only_run(masked):
    """The number of places that are true, which are neighbours."""
    places = np.flatnonzero(masked)
    assert (np.diff(places) == 1).all()
    return len(places)


def test_a_roll_by_zero_keeps_the_image():
    image = different_pixels(3, 4)
    np.testing.assert_array_equal(random_roll(0)(tf.constant(image), (0, 1)), image)


@pytest.mark.parametrize("name", ["cifar10_dvs", "event_drop"])
def test_augmentations_of_frames_say_what_they_are_for(name):
    with pytest.raises(
        ValueError, match=r"is for \w+ \(.*height, width, channels\), not for \(4, 4\)"
    ):
        augmentation.of_images(name)(tf.zeros((4, 4)), (0, 0))


# Mixes

LAYERS = {**layers.AUGMENTATIONS, **layers.MIXES}


def by_layer(name, images, labels, seed=1, batch_size=None):
    """Images and labels after a new layer, in `tf.data` as in a pipeline."""
    examples = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
    results = list(
        examples.batch(batch_size or len(images))
        .map(LAYERS[name](seed))
        .as_numpy_iterator()
    )
    return [
        np.concatenate([result[key] for result in results])
        for key in ("images", "labels")
    ]


@pytest.fixture
def batch():
    """Constant images of values 0 to 127, with their indices as labels."""
    images = np.broadcast_to(
        np.arange(128, dtype="float32")[:, None, None, None], (128, 50, 40, 3)
    )
    return tf.constant(images), tf.eye(128)


@pytest.mark.parametrize("mix", layers.MIXES)
def test_mixes_weight_labels_by_pixels_and_keep_their_sum(mix, batch):
    images, labels = by_layer(mix, *batch)
    assert images.shape == (128, 50, 40, 3)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert labels.min() >= 0
    # The value of an image is its label: pixels and labels must have the same mean.
    # The box of CutMix is between pixels.
    tolerance = 1e-3 if mix == "mixup" else 127 * (1 / 50 + 1 / 40)
    np.testing.assert_allclose(
        images.mean(axis=(1, 2, 3)), labels @ np.arange(128), rtol=1e-4, atol=tolerance
    )
    assert (labels > 0).sum(axis=1).max() == 2
    # A share for each image, not for the batch.
    assert len(np.unique(np.diag(labels))) > 15


def test_mixup_is_even_over_an_image(batch):
    images, labels = by_layer("mixup", *batch)
    np.testing.assert_array_equal(
        images, np.broadcast_to(images[:, :1, :1, :1], images.shape)
    )
    weights = np.diag(labels)[(labels > 0).sum(axis=1) == 2]
    assert_near_share((weights < 0.5).sum(), len(weights), 0.5)
    assert weights.min() < 0.1
    assert weights.max() > 0.9


def test_cutmix_in_time_has_one_span_of_steps_of_another_sequence(batch):
    sequences, labels = by_layer("cutmix_in_time", *batch)
    lengths = collections.Counter()
    for number, (sequence, label) in enumerate(zip(sequences, labels, strict=True)):
        other = (sequence != number).reshape(50, -1)
        assert (other.all(axis=1) | ~other.any(axis=1)).all()
        lengths[_only_run(other.all(axis=1))] += 1
        assert len(np.unique(sequence[other.all(axis=1)])) <= 1
        assert label[number] == pytest.approx(1 - other.all(axis=1).mean(), abs=1e-6)
    assert min(lengths) < 5
    assert max(lengths) > 45


def test_cutmix_has_one_box_of_another_image(batch):
    images, labels = by_layer("cutmix", *batch)
    boxes = 0
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        rows, columns = np.nonzero(image[..., 0] != number)
        if len(rows):
            boxes += 1
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            other = box[0, 0, 0]
            assert np.all(box == other)
            assert label[int(other)] == pytest.approx(
                len(rows) / 2000, abs=1 / 50 + 1 / 40
            )
            assert label[number] == pytest.approx(1 - label[int(other)])
    assert boxes > 64


# Layers


@pytest.mark.parametrize(
    # Keras makes RandAugment by running all its operations.
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.slow if name in ("randaugment", "transformer") else (),
        )
        for name in LAYERS
    ],
)
def test_new_layers_of_the_same_seed_draw_the_same(name):
    # Two equal batches.
    images = np.tile(
        np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("float32"),
        (2, 1, 1, 1),
    )
    first, again, other = (
        by_layer(name, images, tf.eye(32), seed, batch_size=16)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == images.shape
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert 250 < first.max() <= 255
    assert (first != images).mean() > 0.01
    assert not np.array_equal(first, other)
    # The second batch has draws of its own.
    assert not np.array_equal(first[:16], first[16:])


def test_layers_of_each_epoch_seed_and_use_have_their_own_seed():
    assert (
        len(
            {
                layers.seed_of(*numbers)
                for numbers in itertools.product(range(3), repeat=3)
            }
        )
        == 27
    )


# Seeds


IMAGES = {
    "cifar10": pixels(PICTURES[1]),
    "cifar100": pixels(PICTURES[1]),
    "cifar10_dvs": np.random.default_rng(0)
    .poisson(0.2, (3, 48, 48, 2))
    .astype("float32"),
    "event_drop": np.random.default_rng(0)
    .poisson(0.2, (12, 16, 16, 2))
    .astype("float32"),
    "fashion_mnist": pixels(PICTURES[1].resize((28, 28)).convert("L"))[..., np.newaxis],
    "fashion_mnist_cutout": pixels(PICTURES[1].resize((28, 28)).convert("L"))[
        ..., np.newaxis
    ],
    "imagenet": pixels(PHOTOGRAPHS[1].resize((320, 240))),
    "spoken_words": np.random.default_rng(0).poisson(0.2, (40, 30)).astype("float32"),
}
SHAPES = {name: image.shape for name, image in IMAGES.items()} | {
    "imagenet": (224, 224, 3)
}


def test_every_augmentation_is_tested():
    assert IMAGES.keys() == augmentation.BY_NAME.keys()
    assert augmentation.of_images("none") is None


@pytest.mark.parametrize("name", IMAGES)
def test_the_result_depends_only_on_the_seed(name):
    augment = augmentation.of_images(name)
    first, again, other = np.split(
        augmented(augment, IMAGES[name], 24, seeds=(0, 0, 1)), 3
    )
    assert first.shape == (24, *SHAPES[name])
    assert first.dtype == np.float32
    np.testing.assert_array_equal(again, first)
    assert len({sample.tobytes() for sample in first}) >= 16
    assert not np.array_equal(other, first)
    # Outside of a pipeline too. Where there is interpolation, a graph may add in
    # another order.
    for number in range(4):
        sample = augment(tf.constant(IMAGES[name]), tf.constant([0, number], tf.int64))
        np.testing.assert_allclose(sample, first[number], atol=1e-3)


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
"""Mean, and mean with weights that tell places apart, of 50 samples: as they were when
this was written."""


@pytest.mark.parametrize("name", IMAGES)
def test_every_backend_and_machine_draws_the_same(name):
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    image = np.stack([rows * 8, columns * 8, (rows * columns) % 256], axis=-1).astype(
        "float32"
    )
    given = {
        "cifar10_dvs": image[np.newaxis],
        "event_drop": image[np.newaxis],
        "spoken_words": image[..., 0],
    }
    results = augmented(
        augmentation.of_images(name), given.get(name, image), 50
    ).astype("float64")
    weights = np.arange(results.size).reshape(results.shape) % 101
    np.testing.assert_allclose(
        (results.mean(), (results * weights).mean()), DRAWN[name], rtol=1e-5
    )


def test_parts_of_a_composition_do_not_share_draws():
    results = augmented(compose(random_flip, random_flip), different_pixels(2, 2), 2000)
    assert_near_share((results[:, 0, 0, 0] == 1).sum(), 2000, 0.5)


# The sheet


def read_png(path):
    return np.array(Image.open(path))


@pytest.mark.parametrize(
    ("name", "rows", "cell"),
    [
        ("cifar10", 6, 96),
        ("cifar10_dvs", 4, 96),
        ("fashion_mnist_cutout", 6, 112),
        ("cutmix", 6, 96),
        ("sub_policies", 25, 96),
    ],
)
def test_a_sheet_has_one_row_per_image_and_one_column_per_sample(
    name, rows, cell, tmp_path, monkeypatch
):
    monkeypatch.setattr(augmentation_sheet, "SAMPLES", 3)
    assert augmentation_sheet.main([name, "--output", str(tmp_path / "sheet.png")]) == 0
    picture = read_png(tmp_path / "sheet.png")
    columns = 4
    side = cell + 2 * augmentation_sheet.GAP
    assert picture.shape == (rows * side, columns * side, 3)
    cells = picture.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
    assert len({cells[0, column].tobytes() for column in range(columns)}) >= 2


def test_a_sheet_of_images_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(augmentation_sheet, "SAMPLES", 2)
    write_clothes(tmp_path)
    options = ["fashion_mnist", "--data-dir", str(tmp_path)]
    sheets = []
    for seed in ("0", "0", "1"):
        assert (
            augmentation_sheet.main(
                [*options, "--seed", seed, "--output", str(tmp_path / "sheet.png")]
            )
            == 0
        )
        sheets.append(read_png(tmp_path / "sheet.png"))
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[0], sheets[2])


@pytest.mark.parametrize("option", ["--output", "--data-dir"])
def test_the_error_names_a_missing_folder(option, tmp_path, capsys):
    options = {
        "--output": str(tmp_path / "sheet.png"),
        option: str(tmp_path / "nowhere" / "sheet.png"),
    }
    assert (
        augmentation_sheet.main(
            ["fashion_mnist", *(part for pair in options.items() for part in pair)]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert str(tmp_path / "nowhere") in error
    assert option in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cifar"], "sub_policies"),
        (["cifar10", "--seed", "-1"], "not -1"),
        (["cifar10", "--seed", "x"], "'x'"),
        (
            ["cifar10", "--output", "sheet.jpg"],
            "--output: must be a .png file, not sheet.jpg",
        ),
    ],
)
def test_a_wrong_command_line_prints_valid_choices(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        augmentation_sheet.main(["--output", str(tmp_path / "sheet.png"), *arguments])
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err
