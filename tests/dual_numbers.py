"""Autodiff at its simplest, in float64: numbers that carry their derivative along, a
neuron written with them, and means over windows."""

import numpy as np


class Dual:
    """A value and its derivative with respect to one quantity."""

    def __init__(self, value, derivative=0.0):
        self.value = np.asarray(value, "float64")
        self.derivative = np.broadcast_to(
            np.asarray(derivative, "float64"), self.value.shape
        )

    def __add__(self, other):
        other = as_dual(other)
        return Dual(self.value + other.value, self.derivative + other.derivative)

    def __sub__(self, other):
        return self + as_dual(other) * -1.0

    def __rsub__(self, other):
        return as_dual(other) - self

    def __mul__(self, other):
        other = as_dual(other)
        return Dual(
            self.value * other.value,
            self.value * other.derivative + self.derivative * other.value,
        )

    __radd__ = __add__
    __rmul__ = __mul__


def as_dual(x):
    return x if isinstance(x, Dual) else Dual(x)


def detached(x):
    return Dual(x.value)


def sigmoid_surrogate(distance, alpha=4.0):
    sigmoid = 1.0 / (1.0 + np.exp(-alpha * distance))
    return alpha * sigmoid * (1.0 - sigmoid)


def spike(distance):
    """H(u), with the surrogate as its derivative."""
    return Dual(
        (distance.value >= 0).astype("float64"),
        sigmoid_surrogate(distance.value) * distance.derivative,
    )


def averaged(steps, sizes, counts):
    """Each step `(T, batch, ...)` has the mean of the steps of its window that count,
    `(T, batch, 1, 1)`."""
    means, first = [], 0
    for size in sizes:
        part = slice(first, first + size)
        number = np.maximum(np.sum(counts[part], axis=0), 1.0)
        mean = np.sum(counts[part] * steps[part], axis=0) / number
        means += [counts[t] * mean for t in range(first, first + size)]
        first += size
    return np.stack(means)


def rate_derivative(
    currents,
    by,
    decay,
    threshold,
    reset,
    v_reset,
    detach_reset,
    initial_membrane=0.0,
    decay_input=False,
    reset_delay=False,
):
    """dr/dp of neurons, computed by a naive loop.

    Args:
        currents: Array `(T, ...)`.
        by: "input" (a constant added to every step), "decay" or "threshold": what p is.
        decay: Float, of the membrane.
        threshold: Float.
        reset: "soft" or "hard".
        v_reset: Float, the membrane after a hard reset.
        detach_reset: Boolean, whether the reset has no derivative by the spike.
        initial_membrane: Float, before the first step. Defaults to `0.0`.
        decay_input: Boolean, whether the input is scaled by 1 − decay. Defaults to
            `False`.
        reset_delay: Boolean, whether a spike resets the membrane of the next step.
            Defaults to `False`.

    Returns:
        Array like one step of `currents`.
    """
    shift = Dual(np.zeros(currents.shape[1:]), 1.0 if by == "input" else 0.0)
    decay = Dual(decay, 1.0 if by == "decay" else 0.0)
    threshold = Dual(threshold, 1.0 if by == "threshold" else 0.0)
    state, total = (
        Dual(np.full(currents.shape[1:], initial_membrane)),
        Dual(np.zeros(currents.shape[1:])),
    )

    def after_reset(membrane, spikes):
        resetting = detached(spikes) if detach_reset else spikes
        hard = membrane * (1.0 - resetting) + v_reset * resetting
        return membrane - threshold * resetting if reset == "soft" else hard

    spikes = Dual(np.zeros(currents.shape[1:]))
    for current in currents:
        membrane = decay * state + (1.0 - decay if decay_input else 1.0) * (
            shift + current
        )
        if reset_delay:
            membrane = after_reset(membrane, spikes)
        spikes = spike(membrane - threshold)
        state = membrane if reset_delay else after_reset(membrane, spikes)
        total = total + spikes
    return total.derivative / len(currents)
