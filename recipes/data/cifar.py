"""CIFAR-10 and CIFAR-100: 60,000 photographs in ten or a hundred classes, 32x32
pixels."""

from recipes.data import prepared

IMAGE_SHAPE = (32, 32, 3)
CLASSES = {"cifar10": 10, "cifar100": 100}
PIXELS = {
    "cifar10": ((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    "cifar100": ((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
}
"""Mean and standard deviation of the training pixels for each channel."""

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


def load(name, data_dir=None):
    """CIFAR-10 or CIFAR-100 through TensorFlow Datasets.

    Args:
        name: `"cifar10"` or `"cifar100"`.
        data_dir: TensorFlow Datasets' folder, existing or new; None for its default.

    Returns:
        A `Dataset`.

    Raises:
        ImportError: If TensorFlow Datasets is not installed.
        ConnectionError: If TensorFlow Datasets cannot provide the data.
    """
    advice = (
        "Without a network, pass --data-dir: a folder in which TensorFlow "
        f"Datasets has prepared {name}."
    )
    return prepared.in_memory(prepared.builder(name, data_dir, URL, advice))
