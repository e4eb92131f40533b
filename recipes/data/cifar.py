"""CIFAR-10 and CIFAR-100: 60,000 photographs of ten, or of a hundred, kinds of things, 32x32 pixels."""

from recipes.data import prepared

IMAGE_SHAPE = (32, 32, 3)
MEAN_COLORS = {"cifar10": (125.3, 123.0, 113.9), "cifar100": (129.3, 124.1, 112.4)}
"""The mean of the training pixels of each channel."""

COLOR_DEVIATIONS = {"cifar10": (63.0, 62.1, 66.7), "cifar100": (68.2, 65.4, 70.4)}
"""The standard deviation of the training pixels of each channel."""

URL = "https://www.cs.toronto.edu/~kriz/cifar.html"


def load(name, data_dir=None):
    """CIFAR-10 or CIFAR-100 through TensorFlow Datasets.

    Args:
        name: `"cifar10"` or `"cifar100"`.
        data_dir: TensorFlow Datasets' folder, where the data is or will be; None for its own choice.

    Returns:
        A `Dataset`.

    Raises:
        ImportError: If TensorFlow Datasets is not installed.
        ConnectionError: If it cannot provide the data.
    """
    advice = f"Without a network, give --data-dir: a folder in which TensorFlow Datasets has made {name} ready."
    return prepared.in_memory(prepared.builder(name, data_dir, URL, advice))
