"""ImageNet (ILSVRC 2012): 1.28 million photographs of a thousand kinds of things, read as they are needed."""

from recipes import augmentation
from recipes.data import prepared
from recipes.data.dataset import StreamedDataset

IMAGE_SHAPE = (224, 224, 3)
CLASSES = 1000
MEAN_COLOR = (123.675, 116.28, 103.53)
COLOR_DEVIATION = (58.395, 57.12, 57.375)
"""Of each channel, as torchvision has them."""

SHUFFLED_TOGETHER = 5000
"""So many images, one after the other on disk, are put into an order of their own each epoch. TensorFlow Datasets has mixed the
classes when it made the data ready."""

ADVICE = (
    "ImageNet cannot be downloaded freely: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org, put "
    "them into DIR/downloads/manual, and give --data-dir DIR; or give the folder where TensorFlow Datasets has made it ready."
)


def load(data_dir=None):
    """ImageNet through TensorFlow Datasets, from its prepared folder or from the original archives.

    Images to train with come as the files have them, of many sizes; those to test with are resized to 256 pixels at their
    shorter side and cropped to the 224x224 in the middle.

    Args:
        data_dir: TensorFlow Datasets' folder; None for its own choice.

    Returns:
        A `StreamedDataset`.

    Raises:
        ImportError: If TensorFlow Datasets is not installed.
        ConnectionError: If it cannot provide the data.
    """
    made = prepared.builder("imagenet2012", data_dir, None, ADVICE)
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def decode(example):
        return made.info.features["image"].decode_example(example["image"]), example["label"]

    def train_examples(order):
        # Images are shuffled as the JPEG bytes they are: decoded, so many would not fit in memory.
        files = made.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
        blocks = files.batch(SHUFFLED_TOGETHER).enumerate()
        shuffled = blocks.map(lambda number, block: _shuffled(block, tf.random.experimental.stateless_fold_in(order, number)))
        return shuffled.unbatch().map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    def test_examples():
        examples = made.as_dataset(split="validation", as_supervised=True)
        return examples.map(lambda image, label: (augmentation.resized_center(image), label), tf.data.AUTOTUNE)

    sizes = [len(made.as_dataset(split=split)) for split in ("train", "validation")]
    return StreamedDataset(*sizes, CLASSES, train_examples, test_examples)


def _shuffled(block, seed):
    """The images of a block in an order that is drawn by `seed`."""
    import tensorflow as tf

    order = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(block["label"])[0]), seed)
    return {name: tf.gather(values, order) for name, values in block.items()}
