"""Detects weights that are NaN or infinite before training starts."""

from keras import ops

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def not_finite(variables):
    """The paths of the variables with a value that is NaN or infinite, a list.

    If there is none, only one boolean is transferred to the host. It is the same on all
    hosts if the weights are distributed.

    Args:
        variables: List of Keras variables.
    """
    variables = [variable for variable in variables if variable.dtype in _FLOATS]
    finite = [ops.all(ops.isfinite(variable.value)) for variable in variables]
    if not finite or bool(ops.all(ops.stack(finite))):
        return []
    return [
        variable.path
        for variable, is_finite in zip(variables, finite, strict=True)
        if not bool(is_finite)
    ]


def check_finite(variables):
    """Raises ValueError if a variable has a value that is NaN or infinite, and names
    all such variables."""
    if broken := not_finite(variables):
        raise ValueError(
            f"The model has weights that are NaN or infinite: {broken}. Load or "
            "initialise them again; if training caused this, lower the learning rate "
            "or set clipnorm in the optimizer. keras.callbacks.TerminateOnNaN() stops "
            "a run as soon as its loss is NaN."
        )
