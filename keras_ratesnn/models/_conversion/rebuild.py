"""Copies a Keras model with neurons instead of some of its activations."""

import keras

from keras_ratesnn._core import keras_internals
from keras_ratesnn.models._conversion import calibration
from keras_ratesnn.models._conversion.hidden_activations import is_only_activation


class Rebuild:
    """Copies a model with its weights and nested models, and replaces some activations by neurons.

    Args:
        neurons: Dict of operations to the neurons that replace their activations.
        thresholds: Dict of operations to thresholds θ found by calibration.
        timesteps: Integer T.
    """

    def __init__(self, neurons, thresholds, timesteps):
        self.neurons = neurons
        self.thresholds = thresholds
        self.timesteps = timesteps
        self.steps = {}

    def run(self, model):
        copy = self._model(model)
        for operation, (step, *_) in self.steps.items():
            if isinstance(operation, keras.layers.Layer) and type(step) is type(operation):
                step.set_weights(operation.get_weights())
        return copy

    def _model(self, model):
        copy = self._sequential(model) if isinstance(model, keras.Sequential) else self._functional(model)
        if not model.trainable:
            copy.trainable = False
        return copy

    def _sequential(self, model):
        inputs = _input_like(keras_internals.functional_of(model).inputs[0])
        return keras.Sequential([inputs, *(step for layer in model.layers for step in self._steps(layer))], name=model.name)

    def _functional(self, model):
        inputs = keras.tree.map_structure(_input_like, keras_internals.inputs_structure(model))
        outputs = keras_internals.run_through_graph(model, inputs, self._call)
        return keras.Model(inputs, outputs, name=model.name)

    def _call(self, operation):
        def call(*args, **kwargs):
            first, *others = self._steps(operation)
            if operation in self.neurons and is_only_activation(operation):
                args, kwargs = keras.tree.flatten((args, kwargs))[:1], {}
            outputs = first(*args, **kwargs)
            for step in others:
                outputs = step(outputs)
            return outputs

        return call

    def _steps(self, operation):
        """The operations that replace an operation: a list; the first one gets its weights."""
        if operation not in self.steps:
            self.steps[operation] = [*self._before_activation(operation), *self._neurons(operation)]
        return self.steps[operation]

    def _before_activation(self, operation):
        if keras_internals.is_graph(operation):
            return [self._model(operation)]
        if operation not in self.neurons:
            return [type(operation).from_config(operation.get_config())]
        if is_only_activation(operation):
            return []
        return [type(operation).from_config({**operation.get_config(), "activation": "linear"})]

    def _neurons(self, operation):
        neuron, threshold = self.neurons.get(operation), self.thresholds.get(operation)
        if neuron is None:
            return []
        return [neuron] if threshold is None else calibration.between_scales(neuron, threshold, self.timesteps)


def _input_like(tensor):
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
