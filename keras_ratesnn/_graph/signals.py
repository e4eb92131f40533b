"""Signals: tensors over time, between the operations of a network, for what rewrites or watches it."""

from collections.abc import Callable
from typing import Any

from keras_ratesnn._core import tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._graph.walk import Call


class Signal:
    """A tensor over time.

    Args:
        value: Tensor `(batch * T, ...)`, all steps; `(batch, ...)` if `static`.
        static: Boolean, whether the signal is the same at every step. Defaults to `False`.
    """

    __slots__ = ("__weakref__", "static", "value")

    def __init__(self, value: Tensor, static: bool = False) -> None:
        self.value = value
        self.static = static


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
