"""Dataset: labelled training and test images, in memory or as a stream."""

import dataclasses
from collections.abc import Callable

import numpy as np

from recipes.checks import mistake


def everything(examples):
    """The whole of a `tf.data.Dataset`."""
    return examples


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images in memory. An image may be a sequence of frames `(time, height,
    width, channels)`.

    Attributes:
        train_images: Array `(images, height, width, channels)` of raw pixels.
        train_labels: Array `(images,)` of integers, the classes; for other tasks an
            array or a dict of arrays, with a row for each image.
        test_images: Like `train_images`; not used for training or model selection.
        test_labels: Like `train_labels`.
        class_names: Tuple of strings, or None if the classes are the integers up to the
            largest label.
    """

    train_images: np.ndarray
    train_labels: np.ndarray | dict[str, np.ndarray]
    test_images: np.ndarray
    test_labels: np.ndarray | dict[str, np.ndarray]
    class_names: tuple[str, ...] | None = None

    @property
    def train_size(self):
        """The number of training images."""
        return len(self.train_images)

    @property
    def test_size(self):
        """The number of test images."""
        return len(self.test_images)

    @property
    def classes(self):
        """The number of classes."""
        if self.class_names is not None:
            return len(self.class_names)
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1

    def first(self, images):
        """A `Dataset` of the first `images` training images and all test images.

        Raises:
            ValueError: If there are fewer.
        """
        if images > self.train_size:
            raise mistake(
                "train_images",
                f"at most the number of training images, {self.train_size}",
                images,
            )
        return dataclasses.replace(
            self,
            train_images=self.train_images[:images],
            train_labels=_rows(self.train_labels, slice(images)),
        )

    def with_held_out(self, images):
        """A `Dataset` with the last `images` training images as test images; they are
        not trained on.

        Raises:
            ValueError: If no training image would be left.
        """
        if images >= self.train_size:
            raise mistake(
                "held_out",
                f"less than the number of training images, {self.train_size}",
                images,
            )
        first = self.first(self.train_size - images)
        return dataclasses.replace(
            first,
            test_images=self.train_images[-images:],
            test_labels=_rows(self.train_labels, slice(-images, None)),
        )

    def train_examples(self, order, part=everything):
        """A `tf.data.Dataset` of pairs (image, label), shuffled with the seed `order`,
        a pair of integers or a tensor of them.

        It can be called inside a `tf.data` function, so that each epoch of a training
        pipeline has its own order. `part` takes a part of a `tf.data.Dataset`; it is
        called with one that costs little to read.
        """
        import tensorflow as tf

        indices = tf.random.experimental.stateless_shuffle(
            tf.range(self.train_size), seed=order
        )
        return _gathered(
            self.train_images,
            self.train_labels,
            part(tf.data.Dataset.from_tensor_slices(indices)),
        )

    def test_examples(self, part=everything):
        """A `tf.data.Dataset` of pairs (image, label), in the order of the files; for
        `part` see `train_examples`."""
        import tensorflow as tf

        return _gathered(
            self.test_images,
            self.test_labels,
            part(tf.data.Dataset.range(self.test_size)),
        )


def _rows(labels, rows):
    if isinstance(labels, dict):
        return {name: array[rows] for name, array in labels.items()}
    return labels[rows]


def _gathered(images, labels, indices):
    """The images and labels at the indices of a `tf.data.Dataset`."""
    import tensorflow as tf

    def read(index):
        image = tf.numpy_function(
            lambda i: images[i], [index], images.dtype, stateful=False
        )
        label = tf.nest.map_structure(lambda rows: tf.gather(rows, index), labels)
        return tf.ensure_shape(image, images.shape[1:]), label

    return indices.map(read, num_parallel_calls=tf.data.AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """Labelled images that are read on demand, for a data set that does not fit in
    memory.

    Attributes:
        train_size: Integer, the number of training images.
        test_size: Integer, the number of test images.
        classes: Integer, the number of classes.
        train_examples: Function of `order` and `part`, as in `Dataset`. It is called
            once per epoch.
        test_examples: Function of `part`, as in `Dataset`.
    """

    train_size: int
    test_size: int
    classes: int
    train_examples: Callable
    test_examples: Callable


def check_folder(folder, advice):
    """Checks that a path is that of a folder of data.

    Raises:
        FileNotFoundError: If there is none.
        NotADirectoryError: If it is something else.
    """
    if not folder.exists():
        raise FileNotFoundError(f"The folder {folder} does not exist. {advice}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder. {advice}")


def check_file(path, advice):
    """Checks that there is a file of data.

    Raises:
        FileNotFoundError: If not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. {advice}")


def check_no_folder(data_dir, source):
    """Checks that no folder is given for data that need none; `source`, a sentence,
    says why.

    Raises:
        ValueError: If one is given.
    """
    if data_dir is not None:
        raise ValueError(
            f"{source} Received: --data-dir {data_dir}. Leave --data-dir out."
        )
