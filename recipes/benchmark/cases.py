"""The models to measure: the library's methods, and the same network without time."""

import inspect

import keras
import numpy as np
from keras import layers, ops

from keras_ratesnn import SpikingModel, models
from keras_ratesnn import layers as spiking
from recipes import device, methods
from recipes.benchmark.settings import ORDINARY, PEERS, SEQUENCES
from recipes.layers import relu_network

CLASSES = 10
CHANNELS = 3

TRANSFORMER_DIMS = 384
"""The channels of the transformers at width 1."""

SEQUENCE_LAYERS, SEQUENCE_UNITS = 2, 560
"""The layers of neurons of the networks for sequences, and the size of the input and of
all layers at width 1."""

SEQUENCE_CLASSES = 20
MAX_DELAY = 25

ORDER = 4
"""The number of steps that `SlidingPSN` sees."""

PADDING = -1.0


def configure(settings):
    """Sets Keras' precision for all models that are built afterwards, the number of
    threads, and on PyTorch the fastest algorithms of cuDNN, as elsewhere."""
    device.set_precision(settings.precision)
    if settings.threads is not None:
        device.set_threads(settings.threads)
    keras.config.set_image_data_format("channels_last")
    if keras.backend.backend() == "torch":
        import torch

        torch.backends.cudnn.benchmark = True
    keras.utils.set_random_seed(0)


def batch(settings, timesteps, method=ORDINARY):
    """The samples and labels of a step, in device memory."""
    generator = np.random.default_rng(0)
    if settings.network in SEQUENCES:
        samples, classes = _sequences(settings, timesteps, generator), SEQUENCE_CLASSES
    else:
        shape = (settings.batch, settings.size, settings.size, CHANNELS)
        samples, classes = generator.random(shape, dtype="float32"), CLASSES
    # PyTorch's own functions accept only 64-bit labels.
    dtype = "int64" if method in PEERS else "int32"
    labels = np.arange(settings.batch, dtype=dtype) % classes
    return ops.convert_to_tensor(samples), ops.convert_to_tensor(labels)


def _sequences(settings, timesteps, generator):
    """Sequences of which a tenth is 1; masked ones are padded, from between T/2 and T
    steps."""
    shape = (settings.batch, timesteps, _sequence_units(settings))
    values = (generator.random(shape) < 0.1).astype("float32")
    if settings.network == "MaskedLIF":
        lengths = generator.integers(
            -(-timesteps // 2), timesteps, settings.batch, endpoint=True
        )
        values[np.arange(timesteps) >= lengths[:, None]] = PADDING
    return values


def _sequence_units(settings):
    return max(1, round(settings.width * SEQUENCE_UNITS))


def spiking_model(settings, method, timesteps):
    """The `SpikingModel` of the settings for a method of `recipes.methods`."""
    chosen = methods.settings_of(method)
    gradient = methods.gradient_method(chosen)
    step_mode = chosen["step_mode"]
    if settings.network in SEQUENCES:
        mask_value = PADDING if settings.network == "MaskedLIF" else None
        network = _sequence_network(settings)
        return SpikingModel(
            network, timesteps, gradient, step_mode, mask_value=mask_value
        )
    build = getattr(models, settings.network)
    # A transformer has no `width`, but a number of channels.
    if "width" in inspect.signature(build).parameters:
        further = {"width": settings.width}
    else:
        further = {"dims": round(settings.width * TRANSFORMER_DIMS)}
    if "normalization" in chosen:
        further["normalization"] = chosen["normalization"]
    return build(
        input_shape=(settings.size, settings.size, CHANNELS),
        classes=CLASSES,
        timesteps=timesteps,
        gradient=gradient,
        step_mode=step_mode,
        **further,
    )


def _sequence_network(settings):
    units = _sequence_units(settings)
    inputs = x = keras.Input((units,))
    for _ in range(SEQUENCE_LAYERS):
        if settings.network == "Delay":
            x = spiking.Delay(MAX_DELAY)(x)
        x = _neurons(settings.network, units)(layers.Dense(units)(x))
    return keras.Model(inputs, layers.Dense(SEQUENCE_CLASSES)(x))


def _neurons(network, units):
    if network == "Recurrent":
        return spiking.Recurrent(spiking.LIF(), layers.Dense(units, use_bias=False))
    if network == "SlidingPSN":
        return spiking.SlidingPSN(ORDER)
    return spiking.LIF()


def trainer(settings, method, timesteps):
    """A model with `train_on_batch(samples, labels)`, compiled with SGD and
    cross-entropy.

    Args:
        settings: `Settings`.
        method: A name of `recipes.methods`, or `ORDINARY` for the same network without
            time.
        timesteps: Integer T; ignored for a network without time.
    """
    if method == ORDINARY:
        model = relu_network(spiking_model(settings, "rate-multi", 1).network)
    else:
        model = spiking_model(settings, method, timesteps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, jit_compile=settings.jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


class TrainingForward(keras.Model):
    """A network whose predictions are forward passes in training mode, without
    gradient; a spiking step has T of them.

    Batch normalisation computes batch statistics and updates the moving ones, as in
    each of the T steps of a training step. In inference mode it would cost less, and
    the floor would be too low.
    """

    def __init__(self, network, jit_compile):
        super().__init__(dtype=network.dtype_policy)
        self.network = network
        self.built = True
        self.compile(jit_compile=jit_compile)

    def call(self, inputs):
        return self.network(inputs, training=True)
