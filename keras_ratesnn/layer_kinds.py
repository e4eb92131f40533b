"""What kind of operation a node of a network is: a training method has one rule for each kind."""

import keras

from keras_ratesnn.layers import Encoder, Neuron

NEURON = "neuron"
ENCODER = "encoder"
BATCH_NORMALIZATION = "batch_normalization"
DROPOUT = "dropout"
AFFINE = "affine"
PARAMETER_FREE_AFFINE = "parameter_free_affine"
OTHER = "other"

_DROPOUT_LAYERS = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
"""Layers that multiply their input by a random mask that does not depend on it."""

_AFFINE_LAYERS = {
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
}

_affine_classes = set(_AFFINE_LAYERS)
"""Those, and the ones that users declare."""

_LAYERS_WITHOUT_WEIGHTS = {
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.RepeatVector,
    keras.layers.Rescaling,
    keras.layers.Reshape,
}

_LAYERS_ON_IMAGES = {
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
}


_FUNCTIONS_OF_TENSORS = _AFFINE_LAYERS | _LAYERS_WITHOUT_WEIGHTS | _LAYERS_ON_IMAGES


def affine(layer_class):
    """Declares a layer class of your own affine in its input: `layer(x) = A x + b`, whatever `A` and `b` are made of.

    Such a layer commutes with the time mean. Rate training then takes the value of its rate from the spiking path and
    needs its derivative alone, where another layer's forward pass is computed once more on the rate. Declare only
    what is true: a layer that is not affine but declared so gets wrong gradients on some backends.

    A class is declared for itself, not for its subclasses. Keras' own affine layers (Dense, convolutions, average
    pooling, padding, reshapes, Add, Concatenate, ...) are known already.

    Example:

    >>> @affine
    ... class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...     def call(self, inputs):
    ...         return inputs * self.scale

    Args:
        layer_class: A subclass of `keras.layers.Layer`.

    Returns:
        The class, so that `affine` can be used as a decorator.

    Raises:
        TypeError: If `layer_class` is not a layer class.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(
            f"`layer_class` must be a subclass of keras.layers.Layer. Received: layer_class={layer_class!r}. "
            "Declare the class, not an instance of it."
        )
    _affine_classes.add(layer_class)
    return layer_class


def takes_any_layout(operation):
    """Whether an operation is a convolution or pooling of Keras, which all backends run on data in any memory order."""
    return type(operation) in _LAYERS_ON_IMAGES


def is_function_of_tensors(operation):
    """Whether an operation is a layer of Keras that looks at tensors alone, not at `training`, masks or what it did before."""
    return type(operation) in _FUNCTIONS_OF_TENSORS


def kind_of(operation):
    """The kind of a Keras operation (a layer, or a node made by `keras.ops`): one of this module's constants."""
    if isinstance(operation, Neuron):
        return NEURON
    if isinstance(operation, Encoder):
        return ENCODER
    if isinstance(operation, keras.layers.BatchNormalization):
        return BATCH_NORMALIZATION
    if isinstance(operation, _DROPOUT_LAYERS):
        return DROPOUT
    if type(operation) in _LAYERS_WITHOUT_WEIGHTS:
        return PARAMETER_FREE_AFFINE
    # An activation inside an affine layer, `Dense(10, activation="relu")`, makes the whole not affine.
    activation = getattr(operation, "activation", None)
    if type(operation) in _affine_classes and activation in (None, keras.activations.linear):
        return AFFINE
    return OTHER
