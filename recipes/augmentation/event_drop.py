"""EventDrop on frames of events, see `keras_ratesnn.events.event_drop` for the one on
recordings."""

import tensorflow as tf


def event_drop(frames, seed):
    """Leaves out nothing, the frames of a span of time, an area of all frames, or
    counts anywhere, with equal probability.

    Frames have no single events: in the last way each count stays or goes as a whole.
    If nothing would be left, all stays.

    Args:
        frames: Tensor `(time, height, width, channels)` of counts.
        seed: Pair of integers.

    Source: Gu et al., "EventDrop: Data Augmentation for Event-based Learning",
    IJCAI 2021.
    """
    if frames.shape.rank != 4:
        raise ValueError(
            "event_drop is for frames (time, height, width, channels), not for "
            f"{frames.shape}."
        )
    seeds = tf.unstack(tf.random.split(seed, 5))
    way = tf.random.stateless_uniform((), seeds[0], maxval=4, dtype=tf.int32)
    share = (
        tf.cast(tf.random.stateless_uniform((), seeds[1], 1, 10, tf.int32), tf.float32)
        / 10
    )
    side_share = (
        tf.cast(tf.random.stateless_uniform((), seeds[2], 1, 20, tf.int32), tf.float32)
        / 20
    )
    starts = tf.random.stateless_uniform((3,), seeds[3])

    def inside(axis, width):
        size = tf.cast(tf.shape(frames)[axis], tf.float32)
        middles = (tf.range(size) + 0.5) / size
        return (middles >= starts[axis]) & (middles < starts[axis] + width)

    span = inside(0, share)[:, None, None, None]
    area = inside(1, side_share)[:, None, None] & inside(2, side_share)[:, None]
    anywhere = tf.random.stateless_uniform(tf.shape(frames), seeds[4]) < share
    dropped = ((way == 1) & span) | ((way == 2) & area) | ((way == 3) & anywhere)
    left = tf.where(dropped, tf.zeros_like(frames), frames)
    return tf.where(tf.reduce_any(left != 0), left, frames)
