"""What flows between the operations of a network in a walk: tensors over time."""

from collections.abc import Callable
from typing import Any

from keras_ratesnn._core import tree
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._graph import Call


class Signal:
    """A tensor over time.

    Args:
        value: Tensor. In multi-step order all steps, folded to `(batch * T, ...)`; in single-step order the one step that
            the walk is at, `(batch, ...)`; in a walk about rates the firing rate of each window, `(batch * W, ...)`. If
            `static`, `(batch, ...)`.
        static: Boolean, whether it is the same at every step: as long as a signal is, its layers run once, not T times.
            Defaults to `False`.
    """

    __slots__ = ("static", "value")

    def __init__(self, value: Tensor, static: bool = False) -> None:
        self.value = value
        self.static = static


class Steps(Signal):
    """Integers or booleans in a walk about rates, which have no rate: all steps of them, `(batch * T, ...)`."""

    __slots__ = ()


def only_signal(call: Call) -> Signal:
    """The one signal among the arguments of an operation that can have no other, say a mask."""
    signals = call.signals
    if len(signals) != 1:
        operation = call.operation
        raise ValueError(
            f"Layer {operation.name!r} of type {type(operation).__name__} takes one tensor of the network in a SpikingModel. "
            f"Received: {len(signals)}. Call it on its input alone, without a mask."
        )
    return signals[0]


def with_tensors(function: Callable[[Any], Any], call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An operation's `(args, kwargs)` with the tensor `function(signal)` in the place of every signal."""
    if len(call.signals) == 1 and len(call.args) == 1 and isinstance(call.args[0], Signal):
        return (function(call.args[0]),), call.kwargs
    return tree.map_leaves(lambda leaf: function(leaf) if isinstance(leaf, Signal) else leaf, (call.args, call.kwargs))
