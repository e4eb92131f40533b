"""Replicas on JAX: none. The compiler sees the whole batch, and `keras.distribution` divides the computation."""

IN_THREADS = False


def count():
    """The number of replicas of a model that see parts of the same batch: 1."""
    return 1


def index():
    """The number of this replica: 0."""
    return 0


def gather(tensor):
    """The tensors of all replicas, `(1, ...)`."""
    return tensor[None]


def averages_gradients(outputs, weights):
    """Does nothing: gradients are those of the whole batch."""


def share_first(variables):
    """Does nothing: variables exist once."""
