"""From a data set to batches: a `tf.data` pipeline, whichever backend trains."""

import keras

from recipes import augmentation


def tensorflow():
    """TensorFlow, for reading data. Where another backend trains, it is kept from taking that backend's GPU memory.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(f'The recipes read their data by tf.data ({error}): pip install -e ".[recipes]"') from error
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    return tf


def training_batches(dataset, recipe, first_epoch=0):
    """All batches of a run, one epoch after the other, from `first_epoch` on.

    The order of an epoch's images and what augmentation does to each is drawn by the seed, the epoch and the image alone: a
    run that is resumed at an epoch goes on as it would have.

    Args:
        dataset: A `Dataset` or `StreamedDataset`.
        recipe: A `Recipe`.
        first_epoch: Integer, the number of epochs that lie behind. Defaults to `0`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`; labels are one-hot vectors if `recipe.mix` mixes images.
    """
    tf = tensorflow()
    augment, mix = augmentation.BY_NAME[recipe.augment], augmentation.MIXES[recipe.mix]

    def augmented(seed):
        # A seed for each image, so that it does not matter which is ready first.
        return lambda number, example: (
            augment(tf.cast(example[0], "float32"), tf.random.experimental.stateless_fold_in(seed, number)),
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
        examples = dataset.train_examples(order)
        if augment is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 1)
            examples = examples.enumerate().map(augmented(seed), num_parallel_calls=tf.data.AUTOTUNE)
        batches = examples.batch(recipe.batch_size)
        if mix is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 2)
            batches = batches.enumerate().map(mixed(seed), num_parallel_calls=tf.data.AUTOTUNE)
        return batches

    return tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(batches_of).prefetch(tf.data.AUTOTUNE)


def check(dataset, recipe):
    """Makes sure that what a recipe does to training images leaves them as its network takes them.

    Raises:
        ValueError: If it does not fit the images, or gives them a shape other than that of the test images.
    """
    asked = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    wanted = dataset.test_examples().element_spec[0].shape
    try:
        found = training_batches(dataset, recipe).element_spec[0].shape[1:]
    # What TensorFlow makes of an error has the traceback in it, and the error itself in its last line.
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"`augment` and `mix` must fit the images, {wanted}. Received: {asked}. {reason}") from error
    if found.as_list() != wanted.as_list():
        raise ValueError(
            f"`augment` must leave the images as the network takes them, {wanted}. Received: {asked}, which makes them {found}."
        )


def test_batches(dataset, recipe):
    """The test images in batches, labels as in `training_batches`."""
    tf = tensorflow()
    batches = dataset.test_examples().batch(recipe.batch_size)
    if recipe.mix != "none":
        batches = batches.map(lambda images, labels: (images, tf.one_hot(labels, dataset.classes)))
    return batches.prefetch(tf.data.AUTOTUNE)
