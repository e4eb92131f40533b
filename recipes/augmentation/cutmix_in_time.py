"""CutMix of sequences: a span of steps comes from another sequence."""

import tensorflow as tf


class CutMixInTime:
    """Replaces a span of steps of each sequence by that of another one of the batch;
    labels are weighted by its share.

    The number of its steps is uniform, from none to all.

    Args:
        seed: Integer.

    Source: Yun et al., "CutMix", ICCV 2019 (arXiv 1905.04899), with boxes in time.
    """

    def __init__(self, seed):
        self.generator = tf.random.Generator.from_seed(seed)

    def __call__(self, batch):
        sequences, labels = batch["images"], batch["labels"]
        count, steps = tf.shape(sequences)[0], sequences.shape[1]
        partners = tf.argsort(self.generator.uniform((count,)))
        length = self.generator.uniform((count,), maxval=steps + 1, dtype=tf.int32)
        start = tf.cast(
            self.generator.uniform((count,)) * tf.cast(steps - length + 1, tf.float32),
            tf.int32,
        )
        positions = tf.range(steps)
        inside = (positions >= start[:, None]) & (positions < (start + length)[:, None])
        inside = tf.reshape(inside, (-1, steps, *[1 for _ in sequences.shape[2:]]))
        share = (tf.cast(length, labels.dtype) / steps)[:, None]
        return {
            "images": tf.where(inside, tf.gather(sequences, partners), sequences),
            "labels": (1 - share) * labels + share * tf.gather(labels, partners),
        }
