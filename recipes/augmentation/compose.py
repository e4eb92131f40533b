"""Composition of augmentations."""

import tensorflow as tf


def compose(*augmentations):
    """An augmentation that applies all `augmentations` in order, each with its own seed."""

    def augment(image, seed):
        seeds = tf.unstack(tf.random.split(seed, len(augmentations)))
        for augmentation, own_seed in zip(augmentations, seeds, strict=True):
            image = augmentation(image, own_seed)
        return image

    return augment
