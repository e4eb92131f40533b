"""From a data set to batches: a `tf.data` pipeline for all backends."""

import keras

from recipes import augmentation
from recipes.data.part import Part


def tensorflow():
    """Imports TensorFlow for reading data. With another backend it must not allocate GPU memory.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f'The recipes read their data with tf.data ({error}): pip install -e ".[recipes]"') from error
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    return tf


def training_batches(dataset, recipe, first_epoch=0, part=(0, 1), divides_rest=True):
    """All batches of a run, one epoch after the other, starting at `first_epoch`.

    The order and augmentation of images depend only on the seed, the epoch and the image, so a resumed run sees the same
    batches as an uninterrupted one.

    Args:
        dataset: A `Dataset` or `StreamedDataset`.
        recipe: A `Recipe`.
        first_epoch: Integer, the number of completed epochs. Defaults to `0`.
        part: Pair of integers `(number, parts)`: which part of each batch to read. Mixes combine the images of a part. Defaults
            to `(0, 1)`, whole batches.
        divides_rest: Boolean, whether a last, smaller batch is divided as well. Defaults to `True`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`; labels are one-hot vectors if `recipe.mix` mixes images.
    """
    tf = tensorflow()
    part = Part(*part, dataset.train_size, recipe.batch_size, divides_rest)
    augment, mix = augmentation.BY_NAME[recipe.augment], augmentation.MIXES[recipe.mix]

    def augmented(seed):
        # One seed per image, so that the order of parallel calls does not matter.
        return lambda number, example: (
            augment(tf.cast(example[0], "float32"), tf.random.experimental.stateless_fold_in(seed, part.position(number))),
            example[1],
        )

    def mixed(seed):
        return lambda number, batch: mix(
            batch[0],
            tf.one_hot(batch[1], dataset.classes),
            tf.random.experimental.stateless_fold_in(seed, number),
        )

    def batches_of(epoch):
        order = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
        examples = dataset.train_examples(order, part.of)
        if augment is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 1)
            examples = examples.enumerate().map(augmented(seed), num_parallel_calls=tf.data.AUTOTUNE)
        batches = part.batches(examples)
        if mix is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 2)
            batches = batches.enumerate().map(mixed(seed), num_parallel_calls=tf.data.AUTOTUNE)
        return batches

    return tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(batches_of).prefetch(tf.data.AUTOTUNE)


def check(dataset, recipe, part=(0, 1)):
    """Checks that the augmentation of a recipe fits its images and its network, and that its batches can be divided.

    Raises:
        ValueError: If it does not fit the images or changes their shape, or if a part of a batch is not whole.
    """
    Part(*part, dataset.train_size, recipe.batch_size)
    asked = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    wanted = dataset.test_examples().element_spec[0].shape
    try:
        found = training_batches(dataset, recipe).element_spec[0].shape[1:]
    # TensorFlow's message contains a traceback; the error itself is in its last line.
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"`augment` and `mix` must fit the images, {wanted}. Received: {asked}. {reason}") from error
    if found.as_list() != wanted.as_list():
        raise ValueError(
            f"`augment` must not change the shape of the images, {wanted}. Received: {asked}, which changes it to {found}."
        )


def evaluation_batches(dataset, recipe, part=(0, 1)):
    """The test images in batches, labels and `part` as in `training_batches`."""
    tf = tensorflow()
    number, parts = part
    batches = dataset.test_examples(lambda examples: examples.shard(parts, number)).batch(recipe.batch_size // parts)
    if recipe.mix != "none":
        batches = batches.map(lambda images, labels: (images, tf.one_hot(labels, dataset.classes)))
    return batches.prefetch(tf.data.AUTOTUNE)
