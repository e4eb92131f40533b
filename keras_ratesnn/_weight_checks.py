"""Weights that are NaN or infinite are found before a run is spent on them."""

from keras import ops

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def check_finite(variables):
    """Raises ValueError if any of the variables has a value that is NaN or infinite, and names those that do.

    One boolean comes to the host, of which all hosts have the same, however the weights are spread over them.

    Args:
        variables: List of Keras variables.
    """
    variables = [variable for variable in variables if variable.dtype in _FLOATS]
    finite = [ops.all(ops.isfinite(variable.value)) for variable in variables]
    if not finite or bool(ops.all(ops.stack(finite))):
        return
    broken = [variable.path for variable, is_finite in zip(variables, finite, strict=True) if not bool(is_finite)]
    raise ValueError(
        f"The model has weights that are NaN or infinite: {broken}. Load or initialise them again; if training "
        "made them so, lower the learning rate or set clipnorm in the optimizer. "
        "keras.callbacks.TerminateOnNaN() stops a run as soon as its loss is NaN."
    )
