"""Time windows: T steps split into W consecutive windows. Rate training keeps one rate
for each.

Steps of a sample may be padding, because sequences in a batch have unequal lengths. A
mean then runs over the other steps of the sample, T_b of T; in a window without any it
is 0, and has no gradient.

Two facts are assumed beyond this file. Each step is in one window: means of all steps
are those of windows weighted by their shares (`mean_of_all`, handlers of weights and of
normalisation). And a window depends on no later one: a derivative concerns only the
windows `since` that of an input, and those `until` that of an output (`eligibility.py`,
`feedback.py`, `parallel.py`).
"""

import itertools

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn._core.backend import engine


def fit(windows, timesteps):
    """Whether T steps can be split into these windows."""
    if isinstance(windows, int):
        return windows <= timesteps
    return sum(windows) == timesteps


def sizes_of(windows, timesteps):
    """The sizes of the windows, a tuple of integers that add up to T.

    For an integer W each of the first W - 1 steps is a window, and the remaining steps
    share one. The first steps, in which membranes rise from rest, are the least
    stationary.

    Args:
        windows: Integer W, or a tuple of sizes.
        timesteps: Integer T.

    Raises:
        ValueError: If T steps cannot be split this way.
    """
    if isinstance(windows, int):
        if not fit(windows, timesteps):
            raise ValueError(
                f"`windows` must be at most timesteps. Received: windows={windows} for "
                f"timesteps={timesteps}. With one window per step the gradient equals "
                "that of backpropagation through time."
            )
        return (*[1] * (windows - 1), timesteps - windows + 1)
    if not fit(windows, timesteps):
        raise ValueError(
            "`windows` must be sizes that add up to timesteps. Received: "
            f"windows={windows}, which add up to {sum(windows)}, for "
            f"timesteps={timesteps}. Pass other sizes, or an integer, which fits any "
            "number of steps."
        )
    return windows


def accumulate(totals, value, inside, plus=lambda total, value: total + value):
    """Adds a value to the sums of the windows that are `inside`.

    Args:
        totals: List of tensors or numbers.
        value: Tensor or number.
        inside: What `Windows.inside` returned.
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


class Windows:
    """The windows of a batch, and the means over their steps.

    Args:
        sizes: Tuple of integers that add up to T, the sizes of the windows.
        mask: Boolean tensor `(batch, T)`, false for padding. Defaults to `None`: all
            steps count.
    """

    def __init__(self, sizes, mask=None):
        self.sizes = sizes
        self.timesteps = sum(sizes)
        self.mask = mask
        # How many steps of each window count: integers, or tensors `(batch,)`.
        self._counts = (
            sizes
            if mask is None
            else [_count(part) for part in self.steps_of_each(mask)]
        )

    def __len__(self):
        return len(self.sizes)

    @property
    def have_equal_weights(self):
        """Whether all rows of a tensor with one value per window, `(batch * W, ...)`,
        count the same in a mean."""
        return self.mask is None and len(set(self.sizes)) == 1

    def inside(self, t):
        """Whether step `t` is inside each window: 0.0 or 1.0, as tensors if `t` is a
        tensor; `()` if there is only one window."""
        if len(self) == 1:
            return ()
        if isinstance(t, int):
            return tuple(float(start <= t < end) for start, end in self._spans())
        return tuple(
            ops.cast(ops.logical_and(t >= start, t < end), "float32")
            for start, end in self._spans()
        )

    def since(self, window):
        """The windows that the input in one acts on, a slice: it and later ones; all
        for `None`."""
        return slice(window, None)

    def until(self, window):
        """The windows whose inputs act on one, a slice: it and earlier ones."""
        return slice(window + 1)

    def of_each(self, lists):
        """For each window its values of lists that begin with any window, and end with
        the last one; a list that begins later has none."""
        return [
            [values[-rest] for values in lists if len(values) >= rest]
            for rest in range(len(self), 0, -1)
        ]

    def steps_of_each(self, steps):
        """The steps in each window, a list, of a tensor `(batch, T, ...)`."""
        return [steps[:, start:end] for start, end in self._spans()]

    def membership(self):
        """For each window a list of T numbers, 1.0 for its steps and 0.0 for others."""
        return [
            [float(start <= t < end) for t in range(self.timesteps)]
            for start, end in self._spans()
        ]

    def _spans(self):
        """The first step of each window, and that after its last."""
        ends = list(itertools.accumulate(self.sizes))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def valid(self, t):
        """Booleans for the rows of step `t`, or of all steps for `None`, false for
        padding; `None` if there is none."""
        if self.mask is None:
            return None
        if t is None:
            return ops.reshape(self.mask, (-1,))
        return time_axis.step_of(self.mask, t)

    def only_valid_at(self, t, rows):
        """Rows of step `t`, or of all steps for `None`, with zeros, and no gradient, in
        place of padding."""
        return time_axis.zero_unless(self.valid(t), rows)

    def mean_of(self, total, window):
        """The mean of a window: the sum over those of its steps that count, `(batch,
        ...)`, divided by their number."""
        return _divided(total, self._counts[window])

    def mean_over_all(self, steps):
        """The mean over all steps that count, `(batch * T, ...)` to `(batch, ...)`,
        summed in float32 or wider."""
        steps = self.only_valid_at(None, steps)
        unfolded = time_axis.unfold(time_axis.widen(steps), self.timesteps)
        mean = self.mean_of_all(ops.sum(unfolded, axis=1))
        return time_axis.cast(mean, time_axis.mean_dtype(steps.dtype))

    def mean_of_all(self, total):
        """The mean over all steps that count, given their sum, `(batch, ...)`."""
        return _divided(total, self._all_counts())

    def counted_means(self, means, window):
        """The means of a window over the steps that count, given a structure of tensors
        and numbers: sums divided by the size of the window."""
        if self.mask is None:
            return means
        scale = self.sizes[window] / ops.maximum(self._counts[window], 1.0)

        def scaled(mean):
            return time_axis.times_rows(mean, scale) if ops.is_tensor(mean) else mean

        return tree.map_leaves(scaled, means)

    def means_over_steps(self, steps):
        """The mean in each window: `(batch * T, ...)` to `(batch * W, ...)`, summed in
        float32 or wider; of floats."""
        steps = self.only_valid_at(None, steps)
        if len(self) == self.timesteps > 1:
            return steps
        if self.have_equal_weights:
            # In one pass over memory.
            size = self.sizes[0]
            unfolded = time_axis.widen(time_axis.unfold(steps, size))
            means = ops.sum(unfolded, axis=1) / size
        else:
            unfolded = time_axis.widen(time_axis.unfold(steps, self.timesteps))
            means = join(
                [
                    self.mean_of(ops.sum(part, axis=1), window)
                    for window, part in enumerate(self.steps_of_each(unfolded))
                ]
            )
        return time_axis.cast(means, steps.dtype)

    def means_of_factors(self, factors, rows):
        """The mean in each window of a number for each step, `(T,)`: for each of
        `batch * W` rows, `(rows,)`, or `(1,)`."""
        if self.mask is not None:
            batch = ops.shape(self.mask)[0]
            return self.means_over_steps(ops.tile(factors, (batch,)))
        means = self.means_over_steps(factors)
        if len(self) == 1:
            return means
        window_of_row = ops.arange(rows, dtype="int32") % len(self)
        return ops.take(means, window_of_row, axis=0)

    def cut(self, tensor):
        """Splits a tensor `(batch * W, ...)` into a list of W tensors `(batch,
        ...)`."""
        if len(self) == 1:
            return [tensor]
        return ops.unstack(time_axis.unfold(tensor, len(self)), len(self), axis=1)

    def repeat(self, tensor):
        """`(batch, ...)` to `(batch * W, ...)`, the same rows in every window."""
        return tensor if len(self) == 1 else time_axis.repeat(tensor, len(self))

    def mean(self, tensor):
        """The mean over all steps, `(batch, ...)`, of a tensor with one value per
        window, `(batch * W, ...)`."""
        if len(self) == 1:
            return self.only_counted(tensor)
        mean = 0
        for part, count in zip(self.cut(tensor), self._counts, strict=True):
            share = _divided(count, self._all_counts())
            mean = mean + part * _like_rows(share, part)
        return mean

    def only_counted(self, means):
        """One value per window, `(batch * W, ...)`, with zeros, and no gradient, for
        windows without any step that counts."""
        if self.mask is None:
            return means
        return time_axis.zero_unless(join(self._counts) > 0.0, means)

    def at_each_step(self, tensor):
        """Expands a tensor with one value per window, `(batch * W, ...)`, to all steps,
        `(batch, T, ...)`; padding is 0."""
        parts = [
            ops.repeat(part[:, None], size, axis=1)
            for part, size in zip(self.cut(tensor), self.sizes, strict=True)
        ]
        steps = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
        return steps if self.mask is None else time_axis.zero_unless(self.mask, steps)

    def weights_of_rows(self, rows):
        """The weight of each of `batch * W` rows in a mean over all steps, W / T for
        each step that counts in its window; `None` if all are equal."""
        if self.have_equal_weights:
            return None
        scale = len(self) / self.timesteps
        if self.mask is None:
            weights = ops.convert_to_tensor(
                [size * scale for size in self.sizes], "float32"
            )
            return ops.take(weights, ops.arange(rows, dtype="int32") % len(self))
        return join([count * scale for count in self._counts])

    def followers(self, window, like):
        """How many of the steps of a window follow one in it, and in the window before:
        shares, numbers or tensors like `like`.

        Steps that are padding neither count nor are followed.
        """
        size = self.sizes[window]
        if self.mask is None:
            return (size - 1) / size, 1 / size
        start = sum(self.sizes[:window])
        follows = ops.logical_and(
            self.mask, ops.pad(self.mask, [[0, 0], [1, 0]])[:, :-1]
        )
        within = _count(follows[:, start + 1 : start + size])
        from_previous = _count(follows[:, start : start + 1])

        def share(count):
            share = count / ops.maximum(self._counts[window], 1.0)
            return ops.broadcast_to(_like_rows(share, like), ops.shape(like))

        return share(within), share(from_previous)

    def share(self, window, training):
        """The fraction of the steps of the batch that are in a window, in training of
        those of the batch of all replicas. Only steps that count are counted."""
        if self.mask is None:
            return self.sizes[window] / self.timesteps
        count, steps = _summed_over_replicas(
            training, ops.sum(self._counts[window]), ops.sum(self._all_counts())
        )
        return _divided(count, steps)

    def share_of_steps(self):
        """The fraction of the steps of each sample that count, `(batch,)`, given a
        mask."""
        return self._all_counts() / self.timesteps

    def padding(self, training):
        """The factor that turns a mean over all steps of a batch, padding with value 0,
        into one over those that count.

        In training it is that of the batch of all replicas, as replicas weigh by their
        samples.
        """
        if self.mask is None:
            return 1.0
        valid = ops.sum(self._all_counts())
        steps = ops.cast(ops.size(self.mask), valid.dtype)
        steps, valid = _summed_over_replicas(training, steps, valid)
        return _divided(steps, valid)

    def _all_counts(self):
        return sum(self._counts)


class Means:
    """Time means in windows of lists of tensors. Integers and booleans have none: all
    of their steps are kept.

    Args:
        windows: `Windows`.
    """

    def __init__(self, windows):
        self.windows = windows

    def add(self, totals, values, t):
        """The totals after a step, or after all steps for `t=None`.

        Args:
            totals: What the previous call returned; `()` before the first one.
            values: List of tensors of the step.
            t: Integer, integer scalar tensor, or `None`.
        """
        here = () if t is None else self.windows.inside(t)
        valid = None if t is None else self.windows.valid(t)
        totals = totals or [None] * len(values)
        return [
            self._add(total, value, t, here, valid)
            for total, value in zip(totals, values, strict=True)
        ]

    def _add(self, total, value, t, here, valid):
        timesteps = self.windows.timesteps
        has_mean = time_axis.is_float(value.dtype)
        if t is None:
            if has_mean:
                return self.windows.means_over_steps(value)
            return time_axis.unfold(value, timesteps)
        if not has_mean:
            return time_axis.with_step(total, value, t, timesteps)
        value = time_axis.zero_unless(valid, time_axis.widen(value))
        if total is None:
            return [value, *(ops.zeros_like(value) for _ in self.windows.sizes[1:])]
        return accumulate(total, value, here)

    def by_window(self, total):
        """The mean in each window, a list, from the total of steps one after the
        other."""
        return [
            self.windows.mean_of(window_total, window)
            for window, window_total in enumerate(total)
        ]

    def rows(self, total):
        """The means, `(batch * W, ...)`, given the last total; of integers and booleans
        all steps, `(batch * T, ...)`."""
        if isinstance(total, list):
            return join(self.by_window(total))
        return total if time_axis.is_float(total.dtype) else time_axis.fold(total)


def join(by_window):
    """Joins a list of W tensors `(batch, ...)` to one tensor `(batch * W, ...)`."""
    if len(by_window) == 1:
        return by_window[0]
    return time_axis.fold(ops.stack(by_window, axis=1))


def _count(mask):
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def _summed_over_replicas(training, *numbers):
    """Scalars, in training their sums over all replicas; elsewhere one may run
    alone."""
    return engine.replicas.sums(*numbers) if training else numbers


def _divided(total, count):
    """A sum divided by a number, or by one for each sample, `(batch,)`. Of nothing, the
    sum is 0, and so is the mean."""
    if isinstance(count, int):
        return total / count
    return total / _like_rows(ops.maximum(count, 1.0), total)


def _like_rows(values, tensor):
    """Numbers for samples, `(batch,)`, in the shape and dtype for a tensor `(batch,
    ...)`; other values as they are."""
    if not (ops.is_tensor(values) and ops.is_tensor(tensor)):
        return values
    return ops.reshape(
        time_axis.cast(values, tensor.dtype),
        (*ops.shape(values), *[1] * (len(tensor.shape) - len(values.shape))),
    )
