"""Augmentation by layers of Keras.

A layer draws from a generator, whose state a resumed run cannot restore. So
`recipes.batches` makes new layers for each epoch, from the seed and the epoch. A layer
takes a dict of `"images"`, a float32 tensor `(batch, height, width, channels)` of raw
pixels, and `"labels"`, `(batch, classes)`, one-hot, and returns such a dict.
"""

import keras

PIXELS = {"value_range": (0, 255)}
COMMON = {"data_format": "channels_last", "dtype": "float32"}


def randaugment(seed):
    """Two random operations of 11, with random strengths.

    Cubuk, Zoph, Shlens, Le, "RandAugment: Practical Automated Data Augmentation with a
    Reduced Search Space", NeurIPS 2020.
    """
    return keras.layers.RandAugment(
        num_ops=2, factor=0.5, seed=seed, **PIXELS, **COMMON
    )


def random_erasing(seed):
    """Noise in a random box, of a random half of the images.

    Zhong, Zheng, Kang, Li, Yang, "Random Erasing Data Augmentation", AAAI 2020 (arXiv
    1708.04896).
    """
    return keras.layers.RandomErasing(factor=(0.5, 0.5), seed=seed, **PIXELS, **COMMON)


def transformer(seed):
    """A random flip, one random operation of 11 at nearly full strength, and a black
    box in a quarter of the images.

    What the authors of spiking transformers do with CIFAR, by the names of timm:
    rand-m9-n1-mstd0.4-inc1, reprob 0.25. timm has other operations, draws their
    strength, and its box has the mean colour.
    """
    flip = keras.layers.RandomFlip("horizontal", seed=seed, **COMMON)
    operation = keras.layers.RandAugment(
        num_ops=1, factor=0.9, seed=seed + 1, **PIXELS, **COMMON
    )
    erasing = keras.layers.RandomErasing(
        factor=(0.25, 0.25), fill_value=0.0, seed=seed + 2, **PIXELS, **COMMON
    )
    return lambda images: erasing(operation(flip(images)))


def mixup(seed):
    """Weighted sums of pairs of images; weights are uniform.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR
    2018 (arXiv 1710.09412), with α = 1.
    """
    return keras.layers.MixUp(alpha=1.0, seed=seed, **COMMON)


def cutmix(seed):
    """Images with a box from another image, of a uniformly drawn fraction of the area.

    The box lies inside the image, between pixels. Labels are weighted by its area, so
    they may differ by a row or column of pixels from what is seen.

    Yun, Han, Oh, Chun, Choe, Yoo, "CutMix: Regularization Strategy to Train Strong
    Classifiers with Localizable Features", ICCV 2019 (arXiv 1905.04899), with α = 1.
    """
    return keras.layers.CutMix(factor=(1.0, 1.0), seed=seed, **COMMON)
