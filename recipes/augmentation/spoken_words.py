"""Augmentation of spikes of spoken words: masks in time and over channels, and
noise."""

import tensorflow as tf

LONGEST_SPAN = 0.2
MOST_CHANNELS = 0.2
MOST_NOISE = 0.01
"""Shares of the steps, of the channels, and of the places that get one more spike."""


def spoken_words(steps, seed):
    """Leaves out a span of time and a band of channels, and adds single spikes
    anywhere; how much is drawn uniformly.

    The masks are those of SpecAugment, without its warping. The shares are ours.

    Args:
        steps: Tensor `(time, channels)` of counts.
        seed: Pair of integers.

    Source: Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic
    Speech Recognition", Interspeech 2019.
    """
    if steps.shape.rank != 2:
        raise ValueError(
            f"spoken_words is for steps (time, channels), not for {steps.shape}."
        )
    seeds = tf.unstack(tf.random.split(seed, 4))
    in_time = _outside(steps, 0, LONGEST_SPAN, seeds[0])
    stays = in_time[:, None] & _outside(steps, 1, MOST_CHANNELS, seeds[1])
    share = tf.random.stateless_uniform((), seeds[3], 0.0, MOST_NOISE)
    noise = tf.random.stateless_uniform(tf.shape(steps), seeds[2]) < share
    return tf.where(stays, steps, tf.zeros_like(steps)) + tf.cast(noise, steps.dtype)


def _outside(steps, axis, most, seed):
    """Where an axis is outside of a random span of at most this share of it."""
    size = tf.cast(tf.shape(steps)[axis], tf.float32)
    drawn = tf.random.stateless_uniform((2,), seed)
    width = drawn[0] * most * size
    start = drawn[1] * (size - width)
    middles = tf.range(size) + 0.5
    return (middles < start) | (middles >= start + width)
