"""The position of the time axis in tensors.

Keras data is `(batch, time, ...)`. Layers of one time step see `(batch * time, ...)`:
time is *folded* into the batch axis. Row `b * T + t` is step `t` of sample `b`, so that
a sharded batch axis stays sharded.
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
    """Time mean of a folded tensor: `(batch * T, ...)` to `(batch, ...)`, summed in
    float32 or wider."""
    # Not ops.mean, which reduces float64 to float32 on JAX and PyTorch.
    return cast(
        ops.sum(unfold(widen(tensor), timesteps), axis=1) / timesteps,
        mean_dtype(tensor.dtype),
    )


def scaled(tensor, factor):
    """The product of a tensor and a number, or a scalar tensor of whatever float dtype,
    in the dtype of the tensor."""
    return tensor * (cast(factor, tensor.dtype) if ops.is_tensor(factor) else factor)


def times_rows(tensor, factors):
    """Multiplies each row of a tensor by its factor, `(rows,)`, or all rows by one
    factor, `()` or `(1,)`."""
    return tensor * as_rows(cast(factors, tensor.dtype), tensor)


def step_of(tensor, t):
    """Step `t`, an integer or an integer scalar tensor, of a tensor `(batch, T,
    ...)`."""
    # PyTorch cannot export Keras' `take` to ONNX.
    return tensor[:, t] if isinstance(t, int) else ops.take(tensor, t, axis=1)


def with_step(steps, tensor, t, timesteps):
    """Writes the tensor `(batch, ...)` of step `t` into those of all steps, `(batch, T,
    ...)`; `steps` is `None` at first."""
    if steps is None:
        return ops.repeat(tensor[:, None], timesteps, axis=1)
    is_now = ops.arange(timesteps, dtype="int32") == t
    is_now = ops.reshape(is_now, (1, -1, *[1 for _ in tensor.shape[1:]]))
    return ops.where(is_now, tensor[:, None], steps)


def step_in_place(steps, t):
    """As `step_of`, in a compiled loop, which reads one step without a gather."""
    batch, _, *shape = ops.shape(steps)
    step = ops.slice(steps, _corner(steps, t), (batch, 1, *shape))
    return ops.squeeze(step, axis=1)


def with_step_in_place(steps, tensor, t):
    """As `with_step`, where nothing has a gradient, which TensorFlow lacks here: a
    compiled loop writes one step, not all of them."""
    return ops.slice_update(steps, _corner(steps, t), tensor[:, None])


def _corner(steps, t):
    return (0, t, *([0] * (len(steps.shape) - 2)))


def zero_unless(rows, tensor):
    """A tensor with zeros where `rows`, of its first axes, is false; the tensor if
    `rows` is `None`."""
    if rows is None:
        return tensor
    # Not a product: a row that is masked may hold anything, such as NaN.
    return ops.where(as_rows(rows, tensor), tensor, ops.zeros((), tensor.dtype))


def as_rows(values, tensor):
    """Values for rows, `(rows,)` or for more of the first axes, or one for all, with as
    many axes as a tensor `(rows, ...)`."""
    inner = _shape(values)[1:]
    return ops.reshape(
        values, (-1, *inner, *([1] * (len(tensor.shape) - 1 - len(inner))))
    )


def factors_of_steps(factors, time_steps):
    """The factor of each time step, an integer or a tensor of integers, of those of all
    steps, `(T,)`."""
    # Taken from a matrix of one column: on PyTorch, ops.take of a vector has an
    # operation that ONNX lacks.
    return ops.squeeze(
        ops.take(ops.expand_dims(factors, -1), time_steps, axis=0), axis=-1
    )


def mean_dtype(dtype):
    """The dtype of a time mean: `dtype`, or float32 for integers and booleans."""
    return dtype if is_float(dtype) else "float32"


def is_float(dtype):
    """Whether a dtype is a floating-point dtype."""
    return "float" in keras.backend.standardize_dtype(dtype)


def accumulation_dtype(dtype):
    """The dtype for sums, statistics and membranes: float32, or wider if `dtype` is."""
    # Not keras.backend.result_type, which reduces float64 to float32 on PyTorch.
    return (
        "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"
    )


def widen(tensor):
    """A tensor cast to float32 or wider, for summation."""
    return cast(tensor, accumulation_dtype(tensor.dtype))


def cast(tensor, dtype):
    """`ops.cast`, but without a call if the dtype is already right, which saves time in
    eager PyTorch."""
    if keras.backend.standardize_dtype(tensor.dtype) == keras.backend.standardize_dtype(
        dtype
    ):
        return tensor
    return ops.cast(tensor, dtype)


def _shape(tensor):
    """The shape as integers, or as a tensor if it is not static."""
    shape = tuple(tensor.shape)
    return ops.shape(tensor) if None in shape else shape
