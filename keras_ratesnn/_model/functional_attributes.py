"""Attributes of Functional models, for a model that wraps a network."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.annotations import Shape, Structure
from keras_ratesnn._model.input_checks import with_time
from keras_ratesnn._model.method_calls import spec_over_time


class FunctionalAttributes:
    """Gives a `keras.Model` with a `network` the inputs, outputs and `get_layer` of a
    Functional model, and the shapes of its outputs.

    The inputs are those of the network, without time, so that
    `keras.Model(model.inputs, model.get_layer(name).output)` is a part of the network.
    The outputs are those of a symbolic call of the model.
    """

    network: keras.Model
    timesteps: int
    return_sequences: bool
    __call__: Callable[..., Structure]

    _symbolic_outputs: tuple[Any, Structure] = (None, None)

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """List of the network's symbolic inputs, `(batch, ...)`."""
        return list(_graph.as_graph(self.network).inputs)

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """List of the model's symbolic outputs for these inputs."""
        made_for, outputs = self._symbolic_outputs
        settings = self.return_sequences, self.timesteps
        if made_for != settings:
            outputs = self(self.input)
            self._symbolic_outputs = settings, outputs
        return keras.tree.flatten(outputs)

    @property
    def input(self) -> Structure:
        """The network's symbolic inputs in the structure in which it was made."""
        return keras_internals.inputs_structure(_graph.as_graph(self.network))

    @property
    def output_names(self) -> list[str]:
        """The names of the network's outputs, for losses, metrics and labels that are
        given by name.

        Raises:
            AttributeError: If the outputs are a dict, whose keys are their names.
        """
        graph = _graph.as_graph(self.network)
        if isinstance(keras_internals.outputs_structure(graph), dict):
            raise AttributeError(
                "The outputs of this model are a dict, whose keys are their names."
            )
        return graph.output_names

    @property
    def input_shape(self) -> Shape | list[Shape]:
        """The shape of the input, `(None, ...)`, or a list of shapes if there are
        several."""
        return keras_internals.unpack_single([tensor.shape for tensor in self.inputs])

    @property
    def output_shape(self) -> Shape | list[Shape]:
        """The shape of the output, `(None, ...)`, or a list of shapes if there are
        several."""
        return keras_internals.unpack_single([tensor.shape for tensor in self.outputs])

    def get_layer(
        self, name: str | None = None, index: int | None = None
    ) -> keras.layers.Layer:
        """A layer of the network, or the network itself by its name. For layers of a
        nested model call its `get_layer`.

        Args:
            name: String, the name of the layer. Defaults to `None`: `index` tells it.
            index: Integer, its index in `network.layers`. Defaults to `None`: `name`
                tells it.
        """
        if index is None and name == self.network.name:
            return self.network
        return self.network.get_layer(name, index)

    def compute_output_spec(
        self, inputs: Structure, training: bool | None = None, mask: Structure = None
    ) -> Structure:
        functional = _graph.as_graph(self.network)
        (first, _), *_ = with_time(self, inputs)
        timesteps = self.timesteps if self.return_sequences else None
        return keras.tree.map_structure(
            functools.partial(spec_over_time, first.shape[0], timesteps),
            keras_internals.outputs_structure(functional),
        )

    def compute_mask(self, inputs: Structure, previous_mask: Structure) -> None:
        """The outputs of a call have the masks of the network's outputs already."""

    def compute_output_shape(self, input_shape: Structure) -> Structure:
        outputs = self.compute_output_spec(
            keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        )
        return keras.tree.map_structure(lambda output: output.shape, outputs)
