"""Replicas on JAX: none. The compiler sees the whole batch, and `keras.distribution` divides the computation."""

PROCESSES = False
"""Whether each replica is a process of its own."""


def count():
    """The number of replicas of a model that see parts of the same batch: 1."""
    return 1


def index():
    """The number of this replica: 0."""
    return 0


def gather(tensor):
    """The tensors of all replicas, `(1, ...)`."""
    return tensor[None]


def average_gradients(outputs, weights):
    """Does nothing: gradients are those of the whole batch."""


def share_first(model):
    """Does nothing: variables exist once."""


def in_data_parallel_module():
    """False: only PyTorch has such a module."""
    return False
