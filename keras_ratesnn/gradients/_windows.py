"""Windows of time: T steps cut into W consecutive parts, of each of which rate training keeps one rate."""

import itertools

from keras import ops

from keras_ratesnn._core import time_axis


def fit(windows, timesteps):
    """Whether T steps can be cut into such windows."""
    return windows <= timesteps if isinstance(windows, int) else sum(windows) == timesteps


def sizes_of(windows, timesteps):
    """The sizes of the windows, a tuple of integers that add up to T.

    An integer W gives the first W - 1 steps a window each, and the rest one together: the first steps, in which membranes rise
    from rest, are the least stationary.

    Args:
        windows: Integer W, or a tuple of sizes.
        timesteps: Integer T.

    Raises:
        ValueError: If T steps cannot be cut so.
    """
    if isinstance(windows, int):
        if not fit(windows, timesteps):
            raise ValueError(
                f"`windows` must be at most timesteps. Received: windows={windows} for timesteps={timesteps}. With as many "
                "windows as steps the gradient is that of backpropagation through time."
            )
        return (*[1] * (windows - 1), timesteps - windows + 1)
    if not fit(windows, timesteps):
        raise ValueError(
            f"`windows` must be sizes that add up to timesteps. Received: windows={windows}, which add up to {sum(windows)}, "
            f"for timesteps={timesteps}. Give other sizes, or an integer, which is right for any number of steps."
        )
    return windows


def inside(sizes, t):
    """For each window whether step `t` is inside: numbers 0.0 or 1.0, or tensors if `t` is one; `()` if there is one window."""
    if len(sizes) == 1:
        return ()
    ends = list(itertools.accumulate(sizes))
    starts = [0, *ends[:-1]]
    if isinstance(t, int):
        return tuple(float(start <= t < end) for start, end in zip(starts, ends, strict=True))
    return tuple(ops.cast(ops.logical_and(t >= start, t < end), "float32") for start, end in zip(starts, ends, strict=True))


def accumulate(totals, value, inside, plus=lambda total, value: total + value):
    """Sums, one for each window, with a value added to that of the windows that are `inside`.

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
    ends = list(itertools.accumulate(sizes))
    sums = [ops.sum(part, axis=1) for part in ops.split(unfolded, ends[:-1], axis=1)]
    means = [total / size for total, size in zip(sums, sizes, strict=True)]
    return time_axis.cast(join(means), steps.dtype)


def join(by_window):
    """One tensor `(batch * W, ...)` of a list of W tensors `(batch, ...)`."""
    return by_window[0] if len(by_window) == 1 else time_axis.fold(ops.stack(by_window, axis=1))


def cut(tensor, sizes):
    """The list of W tensors `(batch, ...)` of one `(batch * W, ...)`."""
    return [tensor] if len(sizes) == 1 else ops.unstack(time_axis.unfold(tensor, len(sizes)), len(sizes), axis=1)


def repeat(tensor, sizes):
    """`(batch, ...)` to `(batch * W, ...)`, the same rows in every window."""
    return tensor if len(sizes) == 1 else time_axis.repeat(tensor, len(sizes))


def mean(tensor, sizes):
    """The mean over all steps, `(batch, ...)`, of what has one value a window, `(batch * W, ...)`."""
    if len(sizes) == 1:
        return tensor
    return sum(part * (size / sum(sizes)) for part, size in zip(cut(tensor, sizes), sizes, strict=True))


def at_each_step(tensor, sizes):
    """`(batch, T, ...)`: the value of its window at each step, of a tensor `(batch * W, ...)`."""
    parts = [ops.repeat(part[:, None], size, axis=1) for part, size in zip(cut(tensor, sizes), sizes, strict=True)]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def of_rows(by_window, tensor):
    """The value of its window for each row of a tensor `(batch * W, ...)`, of one for each window, `(W,)`."""
    windows = by_window.shape[0]
    return by_window if windows == 1 else ops.take(by_window, ops.arange(ops.shape(tensor)[0]) % windows, axis=0)


def weights_of_rows(rows, sizes):
    """The weight of each of so many rows, `batch * W`, in a mean over all steps, 1 on average; `None` if all are equal."""
    if len(set(sizes)) == 1:
        return None
    scale = len(sizes) / sum(sizes)
    weights = ops.convert_to_tensor([size * scale for size in sizes], "float32")
    return ops.take(weights, ops.arange(rows) % len(sizes))
