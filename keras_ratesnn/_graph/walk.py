"""The walk through a network's graph, and the signals between its operations."""

import dataclasses
from typing import Any

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import tree
from keras_ratesnn._graph.planning import Slot, make_plan, plan_of


class Signal:
    """A tensor over time, for what rewrites or watches a network.

    Args:
        value: Tensor `(batch * T, ...)`, all steps; `(batch, ...)` if `static`.
        static: Boolean, whether the signal is the same at every step. Defaults to
            `False`.
    """

    __slots__ = ("__weakref__", "static", "value")

    def __init__(self, value: Any, static: bool = False) -> None:
        self.value = value
        self.static = static


@dataclasses.dataclass(slots=True)
class Call:
    """One call of an operation in a network's graph.

    Args:
        operation: The Keras layer, or the graph node of a function of `keras.ops`.
        args: Tuple, its positional arguments in the graph, with signals instead of
            tensors.
        kwargs: Dict, its keyword arguments, likewise; includes `training` if the
            operation takes it.
        signals: List of the signals among these arguments.
        key: String, the same in every walk of the network and different for every call
            in it.
        kind: The operation's `keras_ratesnn.LayerKind`.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    signals: list
    key: str
    kind: layer_kinds.LayerKind


def walk(network, signals, rule, training, inside=None):
    """Runs a network's graph and passes every operation to `rule`.

    Nested Functional and Sequential models are included. A signal is any object that is
    not a pytree; only the rule interprets signals.

    Args:
        network: A Functional model, see `as_graph`.
        signals: List with one signal for each of `network.inputs`.
        rule: Function from a `Call` to signals, in the structure of the operation's
            outputs.
        training: Boolean, passed on to layers as in Keras' own Functional call.
        inside: Dict of layers to Functional models that are run instead of them, with
            the signals among the arguments of the layer as inputs. Defaults to `None`:
            none.

    Returns:
        Signals in the structure of the network's outputs.
    """
    plan = make_plan(network, inside) if inside else plan_of(network)
    part, found = plan.whole, [None] * plan.slots
    for slot, signal in zip(part.inputs, signals, strict=True):
        found[slot.index] = signal

    def fill_in(leaf):
        return found[leaf.index] if isinstance(leaf, Slot) else leaf

    for planned, last_used in zip(part.calls, part.last_used, strict=True):
        operation = planned.operation
        args, kwargs = tree.map_leaves(fill_in, (planned.args, planned.kwargs))
        if planned.takes_training:
            kwargs["training"] = training
        of_call = [found[index] for index in planned.inputs]
        outputs = rule(
            Call(
                operation,
                args,
                kwargs,
                of_call,
                planned.key,
                layer_kinds.kind_of(operation),
            )
        )
        # In Keras' order, with sorted dict keys.
        outputs = (
            keras.tree.flatten(outputs)
            if isinstance(outputs, (list, tuple, dict))
            else [outputs]
        )
        for slot, signal in zip(planned.outputs, outputs, strict=True):
            found[slot.index] = signal
        # A signal may be the activations of all time steps: its memory is for the next
        # ones.
        for index in last_used:
            found[index] = None
    return tree.map_leaves(fill_in, part.outputs)
