"""Signals: tensors over time, which a walk passes between the operations of a network."""

from collections.abc import Callable
from typing import Any

from keras_ratesnn._core import tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._graph import Call


class Signal:
    """A tensor over time.

    Args:
        value: Tensor. In multi-step mode all steps, folded to `(batch * T, ...)`; in single-step mode the current step,
            `(batch, ...)`; in a walk on rates the firing rate of each window, `(batch * W, ...)`. If `static`, `(batch, ...)`.
        static: Boolean, whether the signal is the same at every step. Layers on static signals run once instead of T times.
            Defaults to `False`.
    """

    __slots__ = ("__weakref__", "static", "value")

    def __init__(self, value: Tensor, static: bool = False) -> None:
        self.value = value
        self.static = static


class Steps(Signal):
    """All steps, `(batch * T, ...)`, of integers or booleans in a walk on rates; they have no rate."""

    __slots__ = ()


def only_signal(call: Call, beside: Any = None) -> Signal:
    """The only signal among the arguments of an operation that accepts no second one, except for `beside`."""
    signals = [signal for signal in call.signals if signal is not beside]
    if len(signals) != 1:
        operation = call.operation
        raise ValueError(
            f"Layer {operation.name!r} of type {type(operation).__name__} takes one input tensor in a SpikingModel. "
            f"Received: {len(signals)}. Call it on its input alone."
        )
    return signals[0]


def with_tensors(function: Callable[[Any], Any], call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The `(args, kwargs)` of an operation with every signal replaced by the tensor `function(signal)`."""
    if len(call.signals) == 1 and len(call.args) == 1 and isinstance(call.args[0], Signal):
        return (function(call.args[0]),), call.kwargs
    return tree.map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Signal) else leaf, (call.args, call.kwargs))
