"""Backend functions shared by JAX and PyTorch, where the shapes of tensors are always known."""

import contextlib


def check_equal(size, wanted, message):
    """Raises ValueError if two integers differ; symbolic sizes in an export are not checked."""
    if isinstance(size, int) and isinstance(wanted, int) and size != wanted:
        raise ValueError(message)


def ranks_of_batch(data):
    """No ranks, and the data: each shape is handled by itself."""
    return (), data


def reading_once(network):
    """A context without effect: reads keep their order anyway."""
    return contextlib.nullcontext()


def loses_replaced_weights(layer):
    """False: tensors that replace weights have their gradients."""
    return False
