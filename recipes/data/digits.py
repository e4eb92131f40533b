"""The 1,797 handwritten digits that ship with scikit-learn."""

from recipes import packages
from recipes.data.dataset import Dataset, check_no_folder

IMAGE_SHAPE = (8, 8, 1)
LARGEST_PIXEL = 16
CLASSES = 10

TEST_IMAGES = 360
SPLIT_SEED = 0
"""The split is the same in every run, so that all seeds have the same test images."""


def load(data_dir=None):
    """The digits, split into 1,437 training and 360 test images with the same class
    proportions.

    Args:
        data_dir: Must be None; only other data sets use a folder.

    Returns:
        A `Dataset`.

    Raises:
        ValueError: If a folder was given.
        ImportError: If scikit-learn is not installed.
    """
    check_no_folder(data_dir, "The digits come with scikit-learn.")
    images, labels = packages.imported(
        "sklearn.datasets", "The data set of digits", "recipes"
    ).load_digits(return_X_y=True)
    from sklearn.model_selection import train_test_split

    images = images.reshape(-1, *IMAGE_SHAPE).astype("uint8")
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    return Dataset(train_images, train_labels, test_images, test_labels)
