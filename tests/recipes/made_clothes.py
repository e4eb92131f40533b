"""Fashion-MNIST files with artificial images, for tests."""

import gzip

import numpy as np

from recipes.data import fashion_mnist

FEW_IMAGES = 320


def write_idx(path, array):
    content = (
        bytes([0, 0, 8, array.ndim])
        + np.array(array.shape, ">u4").tobytes()
        + array.tobytes()
    )
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def made_clothes(images, seed):
    """Noise with a bright bar, whose row is the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, images).astype("uint8")
    pixels = generator.integers(0, 60, (images, 28, 28)).astype("uint8")
    for image, label in zip(pixels, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 250
    return pixels, labels


def write_clothes(folder, images=FEW_IMAGES):
    """Those for tests are compressed."""
    for names, count in (
        (fashion_mnist.FILES[:2], images),
        ([f"{name}.gz" for name in fashion_mnist.FILES[2:]], images // 4),
    ):
        for name, array in zip(names, made_clothes(count, seed=count), strict=True):
            write_idx(folder / name, array)
    return folder
