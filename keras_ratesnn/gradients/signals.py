"""What flows between the operations of a network in a walk: tensors over time."""

from keras import ops

from keras_ratesnn._core import time_axis, tree


class Signal:
    """A tensor over time.

    Args:
        steps: Tensor of all steps, folded to `(batch * T, ...)`; or `(batch, ...)`, of the one step that a walk is at, or
            of every step if `static`.
        static: Boolean, whether it is the same at every step: as long as a signal is, its layers run once, not T times.
    """

    def __init__(self, steps, static):
        self.steps = steps
        self.static = static

    def folded(self, timesteps):
        """All steps, `(batch * T, ...)`."""
        return time_axis.repeat(self.steps, timesteps) if self.static else self.steps

    def each_step(self, timesteps):
        """List of the tensors `(batch, ...)` of all steps."""
        if self.static:
            return [self.steps] * timesteps
        # Not by indexing: the derivative of that is, for each step, a tensor of all steps.
        return ops.unstack(time_axis.unfold(self.steps, timesteps), timesteps, axis=1)


class RateSignal(Signal):
    """Spikes (or currents), without gradient, and their time mean, the rate, with gradient.

    Args:
        steps: As in `Signal`, without gradient; `None` in a walk that is about rates alone.
        rate: Tensor `(batch, ...)`. It is all there is of a signal that is the same at every step.
        static: Boolean, whether it is the same at every step.
    """

    def __init__(self, steps, rate, static=False):
        super().__init__(steps, static)
        self.rate = rate

    @classmethod
    def constant(cls, rate):
        """The signal of a tensor that is the same at every step."""
        return cls(ops.stop_gradient(rate), rate, static=True)


def signals_in(args, kwargs):
    """All signals among an operation's arguments."""
    return [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, Signal)]


def only_signal(operation, args, kwargs):
    """The one signal among the arguments of an operation that can have no other, say a mask."""
    signals = signals_in(args, kwargs)
    if len(signals) != 1:
        raise ValueError(
            f"Layer {operation.name!r} of type {type(operation).__name__} takes one tensor of the network in a SpikingModel. "
            f"Received: {len(signals)}. Call it on its input alone, without a mask."
        )
    return signals[0]


def map_signals(function, args, kwargs):
    """An operation's arguments with `function(signal)` in the place of every signal."""
    return tree.map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Signal) else leaf, (args, kwargs))
