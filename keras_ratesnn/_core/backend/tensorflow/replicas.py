"""Replicas on TensorFlow: those of `tf.distribute` in synchronous training."""

import tensorflow as tf

from keras_ratesnn._core.backend import base


class Replicas(base.Replicas):
    """The replicas of a machine are threads, which share the layers. Keras' optimizers
    add their gradients."""

    def count(self):
        context = tf.distribute.get_replica_context()
        return 1 if context is None else context.num_replicas_in_sync

    def index(self):
        return tf.distribute.get_replica_context().replica_id_in_sync_group

    def gather(self, tensor):
        replicas = self.count()
        if replicas == 1:
            return tensor[None]
        is_mine = tf.reshape(
            tf.range(replicas) == self.index(), (replicas, *[1] * len(tensor.shape))
        )
        mine = tf.where(is_mine, tensor[None], tf.zeros((), tensor.dtype))
        return tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, mine
        )


replicas = Replicas()
