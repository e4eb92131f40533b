"""Where time lives in a tensor.

Keras data is `(batch, time, ...)`. Layers of one time step see `(batch * time, ...)`: time is *folded* next to the batch,
row `b * T + t` being step `t` of sample `b`, so that a sharded batch axis stays sharded.
"""

import keras
from keras import ops


def fold(tensor):
    """`(batch, T, ...)` to `(batch * T, ...)`."""
    return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))


def unfold(tensor, timesteps):
    """`(batch * T, ...)` to `(batch, T, ...)`."""
    return ops.reshape(tensor, (-1, timesteps, *ops.shape(tensor)[1:]))


def repeat(tensor, timesteps):
    """`(batch, ...)` to `(batch * T, ...)`, the same rows at every step."""
    return ops.repeat(tensor, timesteps, axis=0)


def mean(tensor, timesteps):
    """Time mean of a folded tensor: `(batch * T, ...)` to `(batch, ...)`, summed in float32 or wider."""
    wide = ops.cast(tensor, accumulation_dtype(tensor.dtype))
    return ops.cast(ops.mean(unfold(wide, timesteps), axis=1), tensor.dtype)


def accumulation_dtype(dtype):
    """The dtype for sums, statistics and membranes: float32, or wider if `dtype` is."""
    # Not keras.backend.result_type: on PyTorch it takes float64 down to float32.
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"
