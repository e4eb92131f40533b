"""Time windows: T steps split into W consecutive windows. Rate training keeps one rate for each."""

import itertools

from keras import ops

from keras_ratesnn._core import time_axis


def fit(windows, timesteps):
    """Whether T steps can be split into these windows."""
    return windows <= timesteps if isinstance(windows, int) else sum(windows) == timesteps


def sizes_of(windows, timesteps):
    """The sizes of the windows, a tuple of integers that add up to T.

    For an integer W each of the first W - 1 steps is a window, and the remaining steps share one. The first steps, in which
    membranes rise from rest, are the least stationary.

    Args:
        windows: Integer W, or a tuple of sizes.
        timesteps: Integer T.

    Raises:
        ValueError: If T steps cannot be split this way.
    """
    if isinstance(windows, int):
        if not fit(windows, timesteps):
            raise ValueError(
                f"`windows` must be at most timesteps. Received: windows={windows} for timesteps={timesteps}. With one "
                "window per step the gradient equals that of backpropagation through time."
            )
        return (*[1] * (windows - 1), timesteps - windows + 1)
    if not fit(windows, timesteps):
        raise ValueError(
            f"`windows` must be sizes that add up to timesteps. Received: windows={windows}, which add up to {sum(windows)}, "
            f"for timesteps={timesteps}. Pass other sizes, or an integer, which fits any number of steps."
        )
    return windows


def inside(sizes, t):
    """Whether step `t` is inside each window: 0.0 or 1.0, as tensors if `t` is a tensor; `()` if there is only one window."""
    if len(sizes) == 1:
        return ()
    ends = list(itertools.accumulate(sizes))
    starts = [0, *ends[:-1]]
    if isinstance(t, int):
        return tuple(float(start <= t < end) for start, end in zip(starts, ends, strict=True))
    return tuple(ops.cast(ops.logical_and(t >= start, t < end), "float32") for start, end in zip(starts, ends, strict=True))


def accumulate(totals, value, inside, plus=lambda total, value: total + value):
    """Adds a value to the sums of the windows that are `inside`.

    Args:
        totals: List of tensors or numbers.
        value: Tensor or number.
        inside: What `inside` returned.
        plus: Function `(total, value) -> total`. Defaults to addition.
    """
    if not inside:
        return [plus(totals[0], value)]
    added = []
    for total, here in zip(totals, inside, strict=True):
        if isinstance(here, float):
            added.append(plus(total, value) if here else total)
        else:
            added.append(total + value * time_axis.cast(here, value.dtype))
    return added


def means_over_steps(steps, sizes):
    """The time mean in each window: `(batch * T, ...)` to `(batch * W, ...)`, summed in float32 or wider; of floats."""
    timesteps = sum(sizes)
    if len(sizes) == 1:
        return time_axis.mean(steps, timesteps)
    if len(sizes) == timesteps:
        return steps
    unfolded = time_axis.unfold(time_axis.widen(steps), timesteps)
    ends = itertools.accumulate(sizes)
    means = [ops.sum(unfolded[:, end - size : end], axis=1) / size for end, size in zip(ends, sizes, strict=True)]
    return time_axis.cast(join(means), steps.dtype)


def join(by_window):
    """Joins a list of W tensors `(batch, ...)` to one tensor `(batch * W, ...)`."""
    return by_window[0] if len(by_window) == 1 else time_axis.fold(ops.stack(by_window, axis=1))


def cut(tensor, sizes):
    """Splits a tensor `(batch * W, ...)` into a list of W tensors `(batch, ...)`."""
    return [tensor] if len(sizes) == 1 else ops.unstack(time_axis.unfold(tensor, len(sizes)), len(sizes), axis=1)


def repeat(tensor, sizes):
    """`(batch, ...)` to `(batch * W, ...)`, the same rows in every window."""
    return tensor if len(sizes) == 1 else time_axis.repeat(tensor, len(sizes))


def mean(tensor, sizes):
    """The mean over all steps, `(batch, ...)`, of a tensor with one value per window, `(batch * W, ...)`."""
    if len(sizes) == 1:
        return tensor
    return sum(part * (size / sum(sizes)) for part, size in zip(cut(tensor, sizes), sizes, strict=True))


def at_each_step(tensor, sizes):
    """Expands a tensor with one value per window, `(batch * W, ...)`, to all steps, `(batch, T, ...)`."""
    parts = [ops.repeat(part[:, None], size, axis=1) for part, size in zip(cut(tensor, sizes), sizes, strict=True)]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def of_rows(by_window, tensor):
    """Expands values per window, `(W,)`, to the rows of a tensor `(batch * W, ...)`."""
    windows = by_window.shape[0]
    return by_window if windows == 1 else ops.take(by_window, ops.arange(ops.shape(tensor)[0]) % windows, axis=0)


def weights_of_rows(rows, sizes):
    """The weight of each of `batch * W` rows in a mean over all steps, 1 on average; `None` if all are equal."""
    if len(set(sizes)) == 1:
        return None
    scale = len(sizes) / sum(sizes)
    weights = ops.convert_to_tensor([size * scale for size in sizes], "float32")
    return ops.take(weights, ops.arange(rows) % len(sizes))
