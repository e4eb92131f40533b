"""Writes layers that are compositions of other layers as graphs, so that the
activations inside them can be replaced.

A copy of the layer is called with symbolic tensors, which gives a Functional model with
the layers inside and their names: a residual block, a feature pyramid, a prediction
head. Nothing else is known of the layer. So the graph takes its place only if it is the
same with `training=True` and `training=False`, apart from what the layers inside make
of it, and if it has no weights that do not belong to a layer in it. Otherwise the layer
stays as it is, and the report says why.
"""

import dataclasses
import inspect
import warnings
from typing import Any

import keras
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._model.layer_configs import is_of_others
from keras_ratesnn.conversion._hidden_activations import function_of
from keras_ratesnn.conversion._rebuild import freeze_like, new_copy, short


@dataclasses.dataclass
class InsideLayers:
    """The layers of a network that are written as graphs.

    Args:
        graphs: Dict of layers to Functional models; their inputs are the tensors among
            the arguments of the layer, in order.
        reasons: Dict of layers to strings: why they cannot be written as graphs.
        uncopied: Set of layers with graphs that cannot be copied, so that their graphs
            must take their place.
    """

    graphs: dict[keras.Layer, keras.Model] = dataclasses.field(default_factory=dict)
    reasons: dict[keras.Layer, str] = dataclasses.field(default_factory=dict)
    uncopied: set[keras.Layer] = dataclasses.field(default_factory=set)

    def only_with(self, operations):
        """Without the graphs that do not hold one of these operations, except for those
        of layers that cannot be copied."""
        found, reasons = {}, dict(self.reasons)
        for layer, graph in self.graphs.items():
            inside = _graph.paths_of(graph, self.graphs)
            if layer in self.uncopied or not inside.keys().isdisjoint(operations):
                found[layer] = graph
            elif unknown := [
                operation for operation in inside if operation in self.reasons
            ]:
                reasons[layer] = (
                    f"its layer {unknown[0].name!r}: {self.reasons[unknown[0]]}"
                )
        return InsideLayers(found, reasons, self.uncopied)


def look_inside(network):
    """Writes the compositions in a network, in its nested models and in other
    compositions as graphs.

    Args:
        network: A Functional model, see `keras_ratesnn._graph.as_graph`.

    Returns:
        `InsideLayers`.
    """
    found = InsideLayers()
    todo: list[tuple[keras.Model, keras.Layer | None]] = [(network, None)]
    while todo:
        graph, outer = todo.pop()
        for layer, calls in _calls_of_compositions(graph).items():
            if layer in found.graphs or layer in found.reasons:
                continue
            can_be_copied = _can_be_copied(layer)
            try:
                found.graphs[layer] = _written_as_graph(
                    layer, calls, is_copy=outer is not None
                )
            except _Unknown as error:
                found.reasons[layer] = str(error)
                if outer is not None and not can_be_copied:
                    found.graphs.pop(outer, None)
                    found.reasons[outer] = f"its layer {layer.name!r}: {error}"
            else:
                todo.append((found.graphs[layer], layer))
                if not can_be_copied:
                    found.uncopied.add(layer)
    return found


_UNLIKE_ARGUMENTS = "it is called with other arguments each time"
_SOME_SIZE = 64
"""The size that takes the place of those that a model leaves open."""


class _Unknown(Exception):
    """Says why a layer cannot be written as a graph."""


def is_composition(operation):
    """Whether a layer may hold activations that only a look inside shows: a layer that
    is not Keras' own, or a `Lambda`."""
    if (
        not isinstance(operation, keras.Layer)
        or keras_internals.is_graph(operation)
        or function_of(operation) is not None
    ):
        return False
    return isinstance(operation, keras.layers.Lambda) or is_of_others(operation)


def _calls_of_compositions(network):
    """Dict of the compositions in a network and its nested models to the arguments of
    their calls."""
    found: dict[keras.Layer, list[Any]] = {}
    graphs = [_graph.as_graph(network)]
    for graph in graphs:
        for operation, args, kwargs, _ in keras_internals.calls_in(graph):
            if keras_internals.is_graph(operation):
                graphs.append(_graph.as_graph(operation))
            elif is_composition(operation):
                found.setdefault(operation, []).append((args, kwargs))
    return found


def _can_be_copied(layer):
    try:
        with warnings.catch_warnings(action="ignore"):
            new_copy(layer, {})
    # The code of a layer may raise anything.
    except Exception:
        return False
    return True


def _written_as_graph(layer, calls, is_copy):
    if type(layer).__call__ is not keras.Layer.__call__:
        raise _Unknown("it has a `__call__` of its own")
    if keras_internals.own_state(layer):
        raise _Unknown("it has weights or draws random numbers of its own")
    if layer.activity_regularizer is not None:
        raise _Unknown("it has an activity regularizer")
    args, kwargs = _common_arguments(calls)
    copy = layer if is_copy else _copied(layer, args, kwargs)
    keras_internals.forget_symbolic_losses(copy)
    traces = [_trace(copy, args, kwargs, training) for training in (False, True)]
    if _signature(traces[0], copy, False) != _signature(traces[1], copy, True):
        raise _Unknown("it does something else in training")
    if _depends_on_sizes(copy, args, kwargs, traces[0]):
        raise _Unknown(
            "its call depends on sizes of its inputs, which the model leaves open: "
            "give the model fixed ones"
        )
    graph = traces[0]
    keras_internals.forget_training(graph)
    wanted = keras.tree.flatten(layer.output)
    if not all(
        checks.fits(new.shape, old.shape)
        for new, old in zip(graph.outputs, wanted, strict=True)
    ):
        raise _Unknown("its outputs have other shapes than its call gives")
    if not layer.trainable:
        graph.trainable = False
    return graph


def _common_arguments(calls):
    """The arguments of all calls as one: symbolic inputs with the sizes that all have
    in common."""
    flat = [keras.tree.flatten(_without_training(*call)) for call in calls]
    for args, kwargs in calls[1:]:
        try:
            keras.tree.assert_same_structure(
                _without_training(*calls[0]), _without_training(args, kwargs)
            )
        except ValueError:
            raise _Unknown(_UNLIKE_ARGUMENTS) from None
    merged = [_merged(leaves) for leaves in zip(*flat, strict=True)]
    return keras.tree.pack_sequence_as(_without_training(*calls[0]), merged)


def _without_training(args, kwargs):
    return args, {name: value for name, value in kwargs.items() if name != "training"}


def _merged(leaves):
    first, *others = leaves
    if not isinstance(first, keras.KerasTensor):
        if any(other is not first and other != first for other in others):
            raise _Unknown(_UNLIKE_ARGUMENTS)
        return first
    if any(keras_internals.mask_of(leaf) is not None for leaf in leaves):
        raise _Unknown("its inputs have masks")
    if any(
        len(other.shape) != len(first.shape) or other.dtype != first.dtype
        for other in others
    ):
        raise _Unknown("it is called with inputs of other kinds each time")
    shape = [
        size if all(leaf.shape[axis] == size for leaf in leaves) else None
        for axis, size in enumerate(first.shape)
    ]
    return keras.Input(batch_shape=shape, dtype=first.dtype)


def _copied(layer, args, kwargs):
    """A copy of a layer with its weights, and with the names and the frozen layers
    inside; itself if nothing is inside."""
    if not layer.variables and len(list(keras_internals.with_sublayers(layer))) == 1:
        return layer
    try:
        # The layer itself has given the warnings of its class.
        with warnings.catch_warnings(action="ignore"):
            copy = new_copy(layer, {})
            copy(*args, **kwargs)
        copy.set_weights(layer.get_weights())
    # The code of a layer may raise anything.
    except Exception as error:
        raise _Unknown(f"it cannot be copied: {short(error)}") from error
    pairs = zip(
        keras_internals.with_sublayers(layer),
        keras_internals.with_sublayers(copy),
        strict=False,
    )
    for old, new in pairs:
        if type(old) is not type(new):
            raise _Unknown("a copy of it has other layers")
        new.name = old.name
    freeze_like(layer, copy)
    return copy


def _trace(layer, args, kwargs, training):
    """A Functional model of the call of a layer."""
    symbols = _graph.tensors_among(args, kwargs)
    args, kwargs = keras.tree.map_structure(
        lambda leaf: _as_cast(leaf, layer), (args, kwargs)
    )
    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": training}
    variables = len(layer.variables)
    try:
        with keras_internals.calling(layer, training):
            outputs = layer.call(*args, **kwargs)
    except Exception as error:
        raise _Unknown(f"its call cannot be traced: {short(error)}") from error
    flat = keras.tree.flatten(outputs)
    if not flat or not all(isinstance(leaf, keras.KerasTensor) for leaf in flat):
        raise _Unknown("its outputs do not depend on its inputs alone")
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        raise _Unknown("its output is a list of one tensor")
    if len(layer.variables) != variables or keras_internals.forget_symbolic_losses(
        layer
    ):
        raise _Unknown("its call adds losses or weights")
    try:
        return keras.Model(symbols, outputs, name=layer.name)
    except ValueError as error:
        raise _Unknown(f"its call is not a graph: {short(error)}") from error


def _depends_on_sizes(layer, args, kwargs, graph):
    """Whether the graph of a call is another one if sizes that are open, apart from
    that of the batch, are given."""

    def sized(leaf):
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        batch, *sizes = leaf.shape
        return keras.Input(
            batch_shape=(
                batch,
                *(_SOME_SIZE if size is None else size for size in sizes),
            ),
            dtype=leaf.dtype,
        )

    if not any(None in tensor.shape[1:] for tensor in graph.inputs):
        return False
    try:
        args, kwargs = keras.tree.map_structure(sized, (args, kwargs))
        trace = _trace(layer, args, kwargs, training=False)
    # Its inputs may need sizes that fit together.
    except _Unknown:
        return False
    return _signature(trace, layer, False) != _signature(graph, layer, False)


def _as_cast(leaf, layer):
    """An argument as Keras casts it before it calls a layer."""
    casts = (
        isinstance(leaf, keras.KerasTensor)
        and layer.autocast
        and keras.backend.is_float_dtype(leaf.dtype)
    )
    return (
        ops.cast(leaf, layer.compute_dtype)
        if casts and leaf.dtype != layer.compute_dtype
        else leaf
    )


def _signature(graph, layer, training):
    """The calls of a graph in an order and a form that equal graphs have in common."""
    inside = {
        operation: index
        for index, operation in enumerate(keras_internals.with_sublayers(layer))
    }
    places: dict[int, tuple[Any, ...]] = {
        id(tensor): ("input", index) for index, tensor in enumerate(graph.inputs)
    }
    found = []
    for index, (operation, args, kwargs, outputs) in enumerate(
        keras_internals.calls_in(graph)
    ):
        if operation in inside:
            what: Any = inside[operation]
        elif getattr(operation, "variables", ()):
            raise _Unknown("its call makes layers with weights")
        else:
            what = type(operation), str({**operation.get_config(), "name": None})
        if kwargs.get("training") in (None, training):
            args, kwargs = _without_training(args, kwargs)
        leaves = []
        for path, leaf in keras.tree.flatten_with_path((args, kwargs)):
            if isinstance(leaf, keras.Variable):
                raise _Unknown("its call uses weights of its own")
            leaves.append(
                (
                    path,
                    places.get(id(leaf))
                    if isinstance(leaf, keras.KerasTensor)
                    else repr(leaf),
                )
            )
        found.append((what, leaves))
        places |= {
            id(tensor): ("call", index, slot) for slot, tensor in enumerate(outputs)
        }
    return found, [places[id(tensor)] for tensor in graph.outputs]
