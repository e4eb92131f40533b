"""ImageNet (ILSVRC 2012): 1.28 million photographs in a thousand classes, read on
demand."""

from recipes.data import prepared
from recipes.data.dataset import StreamedDataset, everything

IMAGE_SHAPE = (224, 224, 3)
CLASSES = 1000
PIXELS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and standard deviation of each channel, as in torchvision."""

SHUFFLED_TOGETHER = 5000
"""The number of consecutive images to shuffle in each epoch. TensorFlow Datasets has
already mixed the classes."""

SHORTER_SIDE = 256
"""The shorter side to which test images are resized, in pixels, before their center is
cropped."""

ADVICE = (
    "ImageNet cannot be downloaded freely: get ILSVRC2012_img_train.tar and "
    "ILSVRC2012_img_val.tar from image-net.org, put them into DIR/downloads/manual, "
    "and pass --data-dir DIR; or pass the folder where TensorFlow Datasets has "
    "prepared it."
)


def load(data_dir=None):
    """ImageNet through TensorFlow Datasets, from its prepared folder or from the
    original archives.

    Training images have their original, varying sizes. Test images are resized to a
    shorter side of 256 pixels and center-cropped to 224x224.

    Args:
        data_dir: TensorFlow Datasets' folder; None for its default.

    Returns:
        A `StreamedDataset`.

    Raises:
        ImportError: If TensorFlow Datasets is not installed.
        ConnectionError: If TensorFlow Datasets cannot provide the data.
    """
    made = prepared.builder("imagenet2012", data_dir, None, ADVICE)
    import tensorflow as tf
    import tensorflow_datasets as tfds

    undecoded = {"image": tfds.decode.SkipDecoding()}

    def decode(example):
        image = made.info.features["image"].decode_example(example["image"])
        return image, example["label"]

    def train_examples(order, part=everything):
        # Images are shuffled as JPEG bytes, because decoded images would not fit in
        # memory.
        files = made.as_dataset(split="train", decoders=undecoded)
        blocks = files.batch(SHUFFLED_TOGETHER).enumerate()
        shuffled = blocks.map(
            lambda number, block: _shuffled(
                block, tf.random.experimental.stateless_fold_in(order, number)
            )
        )
        return part(shuffled.unbatch()).map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    def test_examples(part=everything):
        def decode_center(example):
            image, label = decode(example)
            return _resized_center(image), label

        files = part(made.as_dataset(split="validation", decoders=undecoded))
        return files.map(decode_center, num_parallel_calls=tf.data.AUTOTUNE)

    sizes = [len(made.as_dataset(split=split)) for split in ("train", "validation")]
    return StreamedDataset(*sizes, CLASSES, train_examples, test_examples)


def _resized_center(image):
    """The center crop of an image, resized with its aspect ratio kept, with
    antialiasing as in Pillow."""
    import tensorflow as tf

    shape = tf.shape(image)[:2]
    new_shape = shape * SHORTER_SIDE // tf.reduce_min(shape)
    image = tf.image.resize(image, new_shape, antialias=True)
    return tf.image.resize_with_crop_or_pad(image, *IMAGE_SHAPE[:2])


def _shuffled(block, seed):
    """The images of a block, shuffled with `seed`."""
    import tensorflow as tf

    order = tf.random.experimental.stateless_shuffle(
        tf.range(tf.shape(block["label"])[0]), seed
    )
    return {name: tf.gather(values, order) for name, values in block.items()}
