"""Layer kinds: the table of facts about Keras' layers and operations that training
methods use.

A training method never checks the class of a layer, only facts: whether it is affine,
normalises, draws random numbers, takes the time step. The facts about Keras' own layers
are listed here; a custom layer declares its facts in the class attribute `layer_kind`:

>>> class Scale(keras.layers.Layer):
...     layer_kind = keras_ratesnn.layers.LayerKind(affine=True)
...
...     def build(self, input_shape):
...         self.scale = self.add_weight(
...             shape=(input_shape[-1],), initializer="ones"
...         )
...
...     def call(self, inputs):
...         return inputs * self.scale
>>> kind_of(Scale()).affine
True

A layer without facts is run unchanged and works with every method. Facts save work, or
declare what a call does not show.
"""

from keras_ratesnn.layer_kinds.calls import (
    is_random,
    may_use_masks,
    seeds_of,
    wants_time_step,
)
from keras_ratesnn.layer_kinds.keras_layers import fixed_scale
from keras_ratesnn.layer_kinds.kind import (
    CELL,
    ENCODER,
    NEURON,
    OPERATION,
    READOUT,
    TIME_MEAN,
    TIME_MIXING,
    BatchStatistics,
    LayerKind,
)
from keras_ratesnn.layer_kinds.lookup import affine, kind_of, kind_of_class

__all__ = [
    "CELL",
    "ENCODER",
    "NEURON",
    "OPERATION",
    "READOUT",
    "TIME_MEAN",
    "TIME_MIXING",
    "BatchStatistics",
    "LayerKind",
    "affine",
    "fixed_scale",
    "is_random",
    "kind_of",
    "kind_of_class",
    "may_use_masks",
    "seeds_of",
    "wants_time_step",
]
