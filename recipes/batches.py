"""From a data set to batches: a `tf.data` pipeline for all backends."""

import dataclasses

import numpy as np

from recipes import augmentation
from recipes.checks import mistake
from recipes.packages import tensorflow_for_data


@dataclasses.dataclass(frozen=True)
class ProcessShare:
    """The examples that a process reads in an epoch: every n-th of each batch.

    If the last batch is smaller and not divided, or has fewer examples than there are
    processes, each reads all of it: the mean over it is the same.

    Attributes:
        number: Integer, from 0 on.
        parts: Integer, the number of processes.
        examples: Integer, the number of examples in an epoch.
        batch_size: Integer, of whole batches.
        divides_rest: Boolean, whether a last, smaller batch is divided. Defaults to
            `True`.

    Raises:
        ValueError: If the batch cannot be divided equally.
    """

    number: int
    parts: int
    examples: int
    batch_size: int
    divides_rest: bool = True

    def __post_init__(self):
        if self.batch_size % self.parts:
            raise mistake(
                "batch_size",
                f"a multiple of the number of devices, {self.parts}",
                self.batch_size,
            )

    @property
    def _divided(self):
        """The number of examples that are divided."""
        rest = self.examples % self.batch_size
        if self.divides_rest and rest >= self.parts:
            return self.examples
        return self.examples - rest

    @property
    def _own(self):
        """The number of divided examples that this process reads, and no other."""
        return len(range(self.number, self._divided, self.parts))

    def filtered(self, examples):
        """The part of a `tf.data.Dataset` of all examples."""
        if self.parts == 1:
            return examples

        def is_mine(position, _):
            return (position >= self._divided) | (position % self.parts == self.number)

        return examples.enumerate().filter(is_mine).map(lambda _, example: example)

    def batches(self, examples):
        """The examples of the part in batches."""
        # TensorFlow reserves memory for whole batches.
        whole = min(self.batch_size, self.examples)
        if self.parts == 1 or self._own == 0:
            return examples.batch(whole)
        divided, rest = examples.take(self._own), examples.skip(self._own)
        return divided.batch(min(self.batch_size // self.parts, whole)).concatenate(
            rest.batch(whole)
        )


def training_batches(dataset, recipe, first_epoch=0, part=(0, 1), divides_rest=True):
    """All batches of a run, one epoch after the other, starting at `first_epoch`.

    The order and augmentation of images depend only on the seed, the epoch and the
    image, so a resumed run sees the same batches as an uninterrupted one. The draws of
    layers also depend on the batch size and on `part`.

    Args:
        dataset: A `Dataset` or `StreamedDataset`.
        recipe: A `Recipe`.
        first_epoch: Integer, the number of completed epochs. Defaults to `0`.
        part: Pair of integers `(number, parts)`: which part of each batch to read.
            Mixes combine the images of a part. Defaults to `(0, 1)`, whole batches.
        divides_rest: Boolean, whether a last, smaller batch is divided as well.
            Defaults to `True`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`; labels are one-hot vectors if
        `recipe.mix` mixes images.
    """
    tf = tensorflow_for_data()
    share = ProcessShare(*part, dataset.train_size, recipe.batch_size, divides_rest)
    augment = augmentation.image_function(recipe.augment)
    augment_layer = augmentation.layer(recipe.augment)
    mix_layer = augmentation.layer(recipe.mix)

    def from_images(epoch):
        """The batches of an epoch, a tensor, after what is done image by image."""
        order = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
        examples = dataset.train_examples(order, share.filtered)
        if augment is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 1)

            def augmented(position, example):
                # One seed per image, so that the order of parallel calls does not
                # matter.
                own_seed = tf.random.experimental.stateless_fold_in(seed, position)
                return augment(tf.cast(example[0], "float32"), own_seed), example[1]

            positions = share.filtered(tf.data.Dataset.range(dataset.train_size))
            examples = tf.data.Dataset.zip(positions, examples).map(
                augmented, num_parallel_calls=tf.data.AUTOTUNE
            )
        return share.batches(examples)

    def from_layers(epoch):
        """The batches of an epoch, an integer: layers draw from a generator, so one
        batch comes after the other, and each epoch has new layers."""
        batches = from_images(tf.constant(epoch, tf.int64))
        if augment_layer is not None:
            layer = augment_layer(seed_of_layer(recipe.seed, epoch, 1))
            batches = batches.map(
                lambda images, labels: (layer(tf.cast(images, "float32")), labels)
            )
        if mix_layer is not None:
            mix = mix_layer(seed_of_layer(recipe.seed, epoch, 2))

            def mixed(images, labels):
                images = tf.cast(images, "float32")
                labels = tf.one_hot(labels, dataset.classes)
                batch = mix({"images": images, "labels": labels})
                return batch["images"], batch["labels"]

            batches = batches.map(mixed)
        return batches

    if augment_layer is None and mix_layer is None:
        epochs = tf.data.Dataset.range(first_epoch, recipe.epochs)
        return epochs.flat_map(from_images).prefetch(tf.data.AUTOTUNE)
    # It is traced for its signature, which takes seconds with some layers, and read
    # once: Keras may begin again, and then layers would go on drawing.
    first = [from_layers(first_epoch)]
    kind = first[0].element_spec

    def from_each_epoch():
        for epoch in range(first_epoch, recipe.epochs):
            yield from first.pop() if first else from_layers(epoch)

    batches = tf.data.Dataset.from_generator(from_each_epoch, output_signature=kind)
    return batches.prefetch(tf.data.AUTOTUNE)


def seed_of_layer(seed, epoch, use):
    """The seed of a layer: a different one for each seed of a run, epoch, and `use`, an
    integer."""
    drawn = np.random.SeedSequence((seed, epoch, use)).generate_state(1)
    return int(drawn[0] >> 1)


def check(dataset, recipe, part=(0, 1)):
    """Checks that the augmentation of a recipe fits its images and its network, and
    that its batches can be divided.

    Raises:
        ValueError: If it does not fit the images or changes their shape, or if a part
            of a batch is not whole.
    """
    ProcessShare(*part, dataset.train_size, recipe.batch_size)
    asked = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    shape = dataset.test_examples().element_spec[0].shape
    try:
        augmented = training_batches(dataset, recipe).element_spec[0].shape[1:]
    # TensorFlow's message contains a traceback; the error itself is in its last line.
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"`augment` and `mix` must fit the images, {shape}. Received: {asked}. "
            f"{reason}"
        ) from error
    if augmented.as_list() != shape.as_list():
        raise ValueError(
            f"`augment` must not change the shape of the images, {shape}. Received: "
            f"{asked}, which changes it to {augmented}."
        )


def evaluation_batches(dataset, recipe, part=(0, 1)):
    """The test images in batches, labels and `part` as in `training_batches`."""
    tf = tensorflow_for_data()
    number, parts = part
    batches = dataset.test_examples(
        lambda examples: examples.shard(parts, number)
    ).batch(min(recipe.batch_size // parts, dataset.test_size))
    if recipe.mix != "none":
        batches = batches.map(
            lambda images, labels: (images, tf.one_hot(labels, dataset.classes))
        )
    return batches.prefetch(tf.data.AUTOTUNE)
