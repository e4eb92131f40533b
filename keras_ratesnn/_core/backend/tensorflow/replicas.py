"""Replicas on TensorFlow: those of `tf.distribute` in synchronous training."""

import tensorflow as tf

PROCESSES = False
"""Whether each replica is a process of its own. The replicas of a machine are threads, which share the layers."""


def count():
    """The number of replicas of a model that see parts of the same batch."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def index():
    """The number of this replica, from 0 on: an integer, or a scalar tensor."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def gather(tensor):
    """The tensors of all replicas, `(replicas, ...)`, with gradient. Their shapes must be equal."""
    replicas = count()
    if replicas == 1:
        return tensor[None]
    is_mine = tf.reshape(tf.range(replicas) == index(), (replicas, *[1] * len(tensor.shape)))
    mine = tf.where(is_mine, tensor[None], tf.zeros((), tensor.dtype))
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, mine)


def average_gradients(outputs, weights):
    """Does nothing: Keras' optimizers add the gradients of replicas."""


def share_first(model):
    """Does nothing: the copies of a variable have equal values."""


def in_data_parallel_module():
    """False: only PyTorch has such a module."""
    return False
