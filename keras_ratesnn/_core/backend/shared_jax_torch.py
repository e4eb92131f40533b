"""Backend functions shared by JAX and PyTorch, where the shapes of tensors are always known."""


def check_equal(size, wanted, message):
    """Raises ValueError if two integers differ; symbolic sizes in an export are not checked."""
    if isinstance(size, int) and isinstance(wanted, int) and size != wanted:
        raise ValueError(message)
