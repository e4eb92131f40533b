"""The mean over time. The layers after it are an ordinary network."""

from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import registry, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layer_kinds import TIME_MEAN, LayerKind


@registry.register
class TimeMean(keras.layers.Layer):
    """The time mean of its input, for example the firing rate of neurons. Layers after
    it run once instead of T times.

    What follows is an ordinary network on rates: its batch normalisation uses the
    statistics of the rates, its activations are not replaced by neurons. All training
    methods and both step modes work. Everything that a layer after a `TimeMean` takes
    must follow one; neurons and encoders cannot. `return_sequences` must be `False`,
    and `SpikingModel.step` uses the mean of the steps so far. Keras masks end here.
    Outside a `SpikingModel` there is one step, and the layer returns its input.

    Example, an ordinary head on firing rates:

    >>> inputs = keras.Input((8,))
    >>> spikes = keras_ratesnn.layers.LIF()(keras.layers.Dense(16)(inputs))
    >>> rates = keras_ratesnn.layers.TimeMean()(spikes)
    >>> outputs = keras.layers.Dense(3)(
    ...     keras.layers.Dense(16, activation="relu")(rates)
    ... )
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, outputs), timesteps=4)
    >>> model.predict(np.ones((2, 8)), verbose=0).shape
    (2, 3)

    Args:
        **kwargs: `name`, `dtype` of a Keras layer.

    Input shape: `(batch, ...)`. Output shape: the same; float32 if the input is integer
    or boolean.
    """

    layer_kind = LayerKind(
        role=TIME_MEAN,
        affine=True,
        parameter_free=True,
        function_of_tensors=True,
        moves=True,
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(inputs, time_axis.mean_dtype(inputs.dtype))

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, time_axis.mean_dtype(inputs.dtype))
