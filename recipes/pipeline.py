"""From a data set to batches: a `tf.data` pipeline for all backends."""

import dataclasses

from recipes import augmentation
from recipes.augmentation import layers
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
        return (
            self.examples
            if self.divides_rest and rest >= self.parts
            else self.examples - rest
        )

    @property
    def _own(self):
        """How many of them this process reads alone."""
        return len(range(self.number, self._divided, self.parts))

    def of(self, examples):
        """The part of a `tf.data.Dataset` of all examples."""

        def is_mine(position, _):
            return (position >= self._divided) | (position % self.parts == self.number)

        return (
            examples.enumerate().filter(is_mine).map(lambda _, example: example)
            if self.parts > 1
            else examples
        )

    def position(self, index):
        """Where the example with this index in the part, a tensor, is among all
        examples."""
        tf = tensorflow_for_data()
        own = self._own
        return (
            tf.where(
                index < own,
                index * self.parts + self.number,
                self._divided + index - own,
            )
            if self.parts > 1
            else index
        )

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
    augment = augmentation.of_images(recipe.augment)
    augment_layer, mix_layer = (
        layers.AUGMENTATIONS.get(recipe.augment),
        layers.MIXES.get(recipe.mix),
    )

    def augmented(seed):
        # One seed per image, so that the order of parallel calls does not matter.
        return lambda number, example: (
            augment(
                tf.cast(example[0], "float32"),
                tf.random.experimental.stateless_fold_in(seed, share.position(number)),
            ),
            example[1],
        )

    def by_layers(batches, epoch):
        # One batch after the other, since layers draw from a generator.
        if augment_layer is not None:
            layer = augment_layer(layers.seed_of(recipe.seed, epoch, 1))
            batches = batches.map(
                lambda images, labels: (layer(tf.cast(images, "float32")), labels)
            )
        if mix_layer is not None:
            mix = mix_layer(layers.seed_of(recipe.seed, epoch, 2))
            batches = batches.map(
                lambda images, labels: {
                    "images": tf.cast(images, "float32"),
                    "labels": tf.one_hot(labels, dataset.classes),
                }
            ).map(mix)
            batches = batches.map(lambda mixed: (mixed["images"], mixed["labels"]))
        return batches

    def batches_of(epoch):
        order = tf.stack([tf.constant(recipe.seed, tf.int64), epoch])
        examples = dataset.train_examples(order, share.of)
        if augment is not None:
            seed = tf.random.experimental.stateless_fold_in(order, 1)
            examples = examples.enumerate().map(
                augmented(seed), num_parallel_calls=tf.data.AUTOTUNE
            )
        return share.batches(examples)

    def of_epoch(epoch):
        return by_layers(batches_of(tf.constant(epoch, tf.int64)), epoch)

    def epochs():
        """Batches of all epochs; new layers are made in each."""
        for epoch in range(first_epoch, recipe.epochs):
            yield from first.pop() if first else of_epoch(epoch)

    if augment_layer is None and mix_layer is None:
        batches = tf.data.Dataset.range(first_epoch, recipe.epochs).flat_map(batches_of)
    else:
        # It is traced for its signature, which takes seconds with some layers, and read
        # once.
        first = [of_epoch(first_epoch)]
        batches = tf.data.Dataset.from_generator(
            epochs, output_signature=first[0].element_spec
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def check(dataset, recipe, part=(0, 1)):
    """Checks that the augmentation of a recipe fits its images and its network, and
    that its batches can be divided.

    Raises:
        ValueError: If it does not fit the images or changes their shape, or if a part
            of a batch is not whole.
    """
    ProcessShare(*part, dataset.train_size, recipe.batch_size)
    asked = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    wanted = dataset.test_examples().element_spec[0].shape
    try:
        found = training_batches(dataset, recipe).element_spec[0].shape[1:]
    # TensorFlow's message contains a traceback; the error itself is in its last line.
    except (ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"`augment` and `mix` must fit the images, {wanted}. Received: {asked}. "
            f"{reason}"
        ) from error
    if found.as_list() != wanted.as_list():
        raise ValueError(
            f"`augment` must not change the shape of the images, {wanted}. Received: "
            f"{asked}, which changes it to {found}."
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
