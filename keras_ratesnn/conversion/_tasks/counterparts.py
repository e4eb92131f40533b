"""Finds what belongs to a spiking network for the attributes of the model that it was
made from."""

import collections
import types

import keras
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn.conversion._rebuild import Rebuild, Replacement
from keras_ratesnn.layers import Neuron


def names_of(model):
    """The names of the operations of a model's graph in order: a list of pairs of a
    name and the names inside.

    Layers without a name get another one each time a model is made, but their order is
    the same.
    """
    return [
        [
            operation.name,
            names_of(operation)
            if keras_internals.is_graph(operation)
            else _names(_layers_inside(operation)),
        ]
        for operation in _graph.as_graph(model).operations
    ]


def _names(operations):
    return [operation.name for operation in operations]


def _layers_inside(operation):
    return (
        [*keras_internals.with_sublayers(operation)][1:]
        if isinstance(operation, keras.layers.Layer)
        else []
    )


class Counterparts(Rebuild):
    """Translates the attributes of a model to those of a model with its spiking
    network.

    * Layers of the graph become those of the same name in the network. A layer that
      neurons have replaced becomes the neurons, and one that is gone, because the layer
      before has taken over what it does, becomes nothing.
    * Models that share layers with the graph, like the backbone of a detector, are
      rebuilt from the layers of the network.
    * Other layers without variables are shared; all else that has variables is copied.
    * The model itself, also in its bound methods, becomes the new model.

    Args:
        model: A Functional or Sequential model.
        network: The network that `spikify` has made from it.
        names: `names_of` the model from which the network was made: `model`, or an
            equal one whose layers have other names.
    """

    def __init__(self, model, network, names):
        super().__init__({})
        self._model_itself = model
        self._by_name = {}
        self._by_id = {}
        self._unclear = {}
        self._pair(model, network, names)

    def _pair(self, model, network, names):
        operations = _graph.as_graph(model).operations
        if len(operations) != len(names):
            raise ValueError(
                f"The saved model was made from a {type(model).__name__} with "
                f"{len(names)} operations. Received: one with {len(operations)} from "
                "its config. Its class must make the same layers from the same config."
            )
        new = {
            operation.name: operation
            for operation in _graph.as_graph(network).operations
        }
        taken = {name for name, _ in names}
        for operation, (name, inside) in zip(operations, names, strict=True):
            if not isinstance(operation, keras.layers.InputLayer):
                self._put(operation, name, new, taken)
                self._pair_inside(operation, inside)

    def _put(self, operation, name, new, taken):
        if name not in new:
            self.copies[operation] = None
            self.replacements[operation] = Replacement(None)
            return
        copy = new[name]
        self._by_name[operation] = copy
        is_replaced = isinstance(copy, Neuron) and not isinstance(operation, Neuron)
        self.copies[operation] = None if is_replaced else copy
        # The names that `spikify` gives to neurons and scales.
        itself = [""] if is_replaced else []
        steps = [
            name + end
            for end in (
                "_current",
                *itself,
                "_neuron_current",
                "_neuron",
                "_neuron_output",
                "_output",
            )
        ]
        after = [
            new[step] for step in steps if step in new and step not in taken - {name}
        ]
        self.replacements[operation] = Replacement(
            None if is_replaced else {}, after=after
        )

    def _pair_inside(self, operation, names):
        copy = self._by_name.get(operation)
        if copy is None:
            return
        if keras_internals.is_graph(operation):
            self._pair(operation, copy, names)
        elif keras_internals.is_graph(copy):
            self._pair_layers_inside(operation, copy, names)

    def _pair_layers_inside(self, layer, graph, names):
        """Pairs the layers inside a layer that has become a model with a graph."""
        # Those of the outermost graph are last.
        operations = list(_graph.paths_of(graph))
        new = dict(zip(_names(operations), operations, strict=True))
        times = collections.Counter(
            [
                *names,
                *_names(
                    operation
                    for operation in operations
                    if operation is not new[operation.name]
                ),
            ]
        )
        for inside, name in zip(_layers_inside(layer), names, strict=True):
            if times[name] > 1:
                self._unclear[inside] = layer
            elif name in new:
                self._put(inside, name, new, set(names))

    def of(self, value, new_model):
        """The counterpart of the value of an attribute.

        Args:
            value: Any object.
            new_model: The model that gets the attribute.
        """
        if value is self._model_itself:
            return new_model
        if isinstance(value, types.MethodType) and value.__self__ is self._model_itself:
            return types.MethodType(value.__func__, new_model)
        if isinstance(value, keras.Operation):
            return self._operation_counterpart(value)
        if isinstance(value, keras.Variable):
            return _copy_of_variable(value)
        if isinstance(value, (keras.Metric, keras.random.SeedGenerator)):
            return type(value).from_config(value.get_config())
        # Keras has its own types of containers.
        if isinstance(value, dict):
            return {key: self.of(item, new_model) for key, item in value.items()}
        if isinstance(value, (set, frozenset)):
            # Libraries remember which layers belong to a graph.
            return {self._id_counterpart(item) for item in value}
        if isinstance(value, list):
            return [self.of(item, new_model) for item in value]
        if isinstance(value, tuple):
            items = [self.of(item, new_model) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        return value

    def _operation_counterpart(self, operation):
        if operation in self._by_name:
            return self._by_name[operation]
        if operation in self._unclear:
            raise TypeError(
                "`model` must not have an attribute that is one of several layers "
                f"{operation.name!r} inside of layer "
                f"{self._unclear[operation].name!r}. Give the layers inside of it "
                "different names, or remove the attribute."
            )
        if not keras_internals.is_graph(operation) and not getattr(
            operation, "variables", ()
        ):
            return operation
        known = set(self.copies)
        copy = self._copy(operation)
        if copy is None:
            return None
        if (
            not keras_internals.is_graph(operation)
            and operation.built
            and not copy.built
        ):
            copy.build_from_config(operation.get_build_config())
        self._copy_weights([other for other in self.copies if other not in known])
        return copy

    def _id_counterpart(self, item):
        if not self._by_id:
            self._by_id = {
                id(operation): copy for operation, copy in self._by_name.items()
            }
        return id(self._by_id[item]) if item in self._by_id else item


def _copy_of_variable(variable):
    # On PyTorch a variable shares the memory of its first value.
    value = ops.copy(variable.value)
    return keras.Variable(
        value, dtype=variable.dtype, trainable=variable.trainable, name=variable.name
    )
