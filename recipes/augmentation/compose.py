"""Several augmentations, one after the other."""

import tensorflow as tf


def compose(*augmentations):
    """An augmentation that does all of `augmentations` in their order, each with a seed of its own."""

    def augment(image, seed):
        seeds = tf.unstack(tf.random.split(seed, len(augmentations)))
        for augmentation, own_seed in zip(augmentations, seeds, strict=True):
            image = augmentation(image, own_seed)
        return image

    return augment
