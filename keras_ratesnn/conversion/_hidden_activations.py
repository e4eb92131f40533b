"""Finds the hidden activations of a network, which neurons can replace; others are
gates, outputs or attention."""

import dataclasses
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._model.layer_configs import is_of_others
from keras_ratesnn.layer_kinds import READOUT, TIME_MEAN, kind_of

HIDDEN = "hidden"
GATE = "gate"
OUTPUT = "output"
SOFTMAX = "softmax"
INSIDE = "inside a layer"
AFTER_MEAN = "after a TimeMean"

_SOFTMAXES = {"softmax", "log_softmax", "sparsemax"}
_SQUASHING = {
    "sigmoid",
    "hard_sigmoid",
    "sparse_sigmoid",
    "tanh",
    "hard_tanh",
    "softsign",
}
"""Bounded activations: a signal that is multiplied by one is gated by it."""

_PLAIN_RELU = {"negative_slope": 0.0, "max_value": None, "threshold": 0.0}
"""The arguments by which a ReLU may differ from relu, with those of relu."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """An activation of a network.

    Args:
        operation: The layer, or the node of a `keras.ops` function, that applies it.
        function: String, the name of the function, of a ReLU with the arguments by
            which it differs from relu.
        role: `"hidden"`, or the reason why it is not: `"gate"`, `"output"`,
            `"softmax"`, `"inside a layer"`, `"after a TimeMean"`.
    """

    operation: keras.Operation
    function: str
    role: str


def is_only_activation(operation):
    """Whether an operation is an activation and nothing else, not a layer with
    `activation=`."""
    return kind_of(operation).activation is not None


def find_activations(network, inside=None):
    """The activations of a network and its nested models, in execution order.

    An activation is

    * an output, if it feeds only outputs of the network;
    * a gate, if its output is multiplied by another signal: the sigmoid of a
      squeeze-and-excite block, the silu of SwiGLU. A signal is gated, and not a gate,
      if it is multiplied by a function of itself (the signal scaled by a
      squeeze-and-excite block), by a bounded activation (sigmoid, tanh, ...) or by an
      input of the network (a mask);
    * ordinary, if it follows a `layers.TimeMean`;
    * hidden otherwise.

    There may be scaling, reshaping, concatenation, dropout and further activations in
    between. An operation that is called several times is hidden if one of its calls is.

    Args:
        network: A Functional model, see `keras_ratesnn._graph.as_graph`.
        inside: Dict of layers to the Functional models that say what they do, see
            `inside_layers`. Defaults to `None`.

    Returns:
        List of `Activation`.
    """
    roles: dict[keras.Operation, set[str]] = {}
    calls = _graph.whole_of(network, inside).calls
    ordinary = _after_means(calls)
    for call in calls:
        roles.setdefault(call.operation, set()).update(
            {AFTER_MEAN} if call in ordinary else _roles(call)
        )
    activations = []
    for operation, uses in roles.items():
        function = function_of(operation)
        if function is not None:
            activations.append(Activation(operation, function, _role(function, uses)))
        else:
            activations += [
                Activation(operation, inside, INSIDE)
                for inside in _functions_inside(operation)
            ]
    return activations


def function_of(operation):
    """The activation function that an operation applies to its result, as `Activation`
    has it; `None` if there is none."""
    activation = kind_of(operation).activation
    if activation == "relu":
        values = {
            name: getattr(operation, name, default)
            for name, default in _PLAIN_RELU.items()
        }
        given = ", ".join(
            f"{name}={value:g}"
            for name, value in values.items()
            if value != _PLAIN_RELU[name]
        )
        return f"relu({given})" if given else activation
    if activation not in (None, "activation") or _is_inside(operation):
        return activation
    return _name_of(getattr(operation, "activation", None))


def _is_inside(operation):
    """Whether a layer's `activation` is not that of its result: in a recurrence, and in
    a block of other layers."""
    if not isinstance(operation, keras.layers.Layer):
        return False
    inside = set(keras_internals.with_sublayers(operation)) - {operation}
    activation = getattr(operation, "activation", None)
    if _is_activation_layer(activation) and not is_of_others(operation):
        inside -= set(keras_internals.with_sublayers(activation))
    return isinstance(operation, keras.layers.RNN) or bool(inside)


def _is_activation_layer(activation):
    return isinstance(activation, keras.layers.Layer) and is_only_activation(activation)


def _name_of(activation):
    if _is_activation_layer(activation):
        return function_of(activation)
    if activation in (None, keras.activations.linear) or not callable(activation):
        return None
    return getattr(activation, "__name__", type(activation).__name__)


def _functions_inside(operation):
    """Names of the activation functions inside a layer, which are not visible in the
    graph."""
    if not isinstance(operation, keras.layers.Layer):
        return []
    inside = keras_internals.with_sublayers(operation)
    functions = [
        function_of(layer) or _name_of(getattr(layer, "activation", None))
        for layer in inside
    ]
    return sorted({function for function in functions if function is not None})


def _after_means(calls):
    """The calls that follow a time mean or a readout, of all calls in execution order:
    a set."""
    after: set[Any] = set()
    for call in calls:
        if call in after or kind_of(call.operation).role in (TIME_MEAN, READOUT):
            after.update(
                consumer for consumer in call.consumers if consumer is not None
            )
    return after


def _role(function, uses):
    if uses == {AFTER_MEAN}:
        return AFTER_MEAN
    if function in _SOFTMAXES:
        return OUTPUT if uses == {OUTPUT} else SOFTMAX
    if HIDDEN in uses or not uses:
        return HIDDEN
    return GATE if GATE in uses else OUTPUT


def _roles(source):
    """All uses of an activation's output."""
    roles, seen, todo = set(), set(), [source]
    while todo:
        call = todo.pop()
        for consumer in call.consumers:
            if consumer is None:
                roles.add(OUTPUT)
            elif _is_product(consumer):
                factors = [factor for factor in consumer.sources if factor is not call]
                roles.add(GATE if _gates(source, factors) else HIDDEN)
            elif not _passes(consumer):
                roles.add(HIDDEN)
            elif consumer not in seen:
                seen.add(consumer)
                todo.append(consumer)
    return roles


def _is_product(call):
    return type(call.operation).__name__ == "Multiply" and len(call.sources) > 1


def _passes(call):
    """Whether an operation only moves, scales or bends a signal, or puts others beside
    it, without mixing in another one."""
    is_alone = len(call.sources) == 1 and kind_of(call.operation).moves
    return is_alone or type(call.operation).__name__ == "Concatenate"


def _gates(source, factors):
    if any(_depends(factor, source) for factor in factors):
        return False
    return function_of(source.operation) in _SQUASHING or not any(
        _is_gate_or_mask(factor) for factor in factors
    )


def _depends(call, source):
    seen, todo = set(), [call]
    while todo:
        call = todo.pop()
        if call is source:
            return True
        if call not in seen:
            seen.add(call)
            todo += call.sources
    return False


def _is_gate_or_mask(call):
    while (
        call.operation is not None
        and function_of(call.operation) not in _SQUASHING
        and _passes(call)
    ):
        call = call.sources[0]
    return call.operation is None or function_of(call.operation) in _SQUASHING
