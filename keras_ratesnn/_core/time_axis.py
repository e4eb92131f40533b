"""Where time lives in a tensor.

Keras data is `(batch, time, ...)`. Layers of one time step see `(batch * time, ...)`: time is *folded* next to the batch,
row `b * T + t` being step `t` of sample `b`, so that a sharded batch axis stays sharded.
"""

import keras
from keras import ops


def fold(tensor):
    """`(batch, T, ...)` to `(batch * T, ...)`."""
    return ops.reshape(tensor, (-1, *_shape(tensor)[2:]))


def unfold(tensor, timesteps):
    """`(batch * T, ...)` to `(batch, T, ...)`."""
    return ops.reshape(tensor, (-1, timesteps, *_shape(tensor)[1:]))


def repeat(tensor, timesteps):
    """`(batch, ...)` to `(batch * T, ...)`, the same rows at every step."""
    return ops.repeat(tensor, timesteps, axis=0)


def mean(tensor, timesteps):
    """Time mean of a folded tensor: `(batch * T, ...)` to `(batch, ...)`, summed in float32 or wider."""
    # Not ops.mean, which takes float64 down to float32 on JAX and PyTorch.
    return cast(ops.sum(unfold(widen(tensor), timesteps), axis=1) / timesteps, mean_dtype(tensor.dtype))


def times_rows(tensor, factors):
    """A tensor with each row multiplied by its factor, `(rows,)`, or all of them by one, `()` or `(1,)`."""
    return tensor * ops.reshape(cast(factors, tensor.dtype), (-1, *([1] * (len(tensor.shape) - 1))))


def mean_dtype(dtype):
    """The dtype of a time mean: `dtype`; that of integers and booleans is a float32."""
    return dtype if is_float(dtype) else "float32"


def is_float(dtype):
    """Whether a dtype is one of real numbers."""
    return "float" in keras.backend.standardize_dtype(dtype)


def accumulation_dtype(dtype):
    """The dtype for sums, statistics and membranes: float32, or wider if `dtype` is."""
    # Not keras.backend.result_type: on PyTorch it takes float64 down to float32.
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def widen(tensor):
    """A tensor in float32 or wider, for sums of it."""
    return cast(tensor, accumulation_dtype(tensor.dtype))


def cast(tensor, dtype):
    """`ops.cast`; a tensor that is of the dtype costs no call, which eager PyTorch would feel."""
    if keras.backend.standardize_dtype(tensor.dtype) == keras.backend.standardize_dtype(dtype):
        return tensor
    return ops.cast(tensor, dtype)


def _shape(tensor):
    """The shape as integers, and where they are not known, as tensors."""
    shape = tuple(tensor.shape)
    return ops.shape(tensor) if None in shape else shape
