"""The models to measure: the library's methods, and the same network without time."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_ratesnn import models
from recipes import device, methods
from recipes.benchmark.settings import (
    CHANNELS,
    CLASSES,
    ORDINARY,
    PEERS,
    TRANSFORMER_DIMS,
)
from recipes.layers import relu_network


def configure(settings):
    """Sets Keras' precision and image data format for all models that are built
    afterwards, and the number of threads."""
    device.set_precision(settings.precision)
    if settings.threads is not None:
        device.set_threads(settings.threads)
    keras.config.set_image_data_format(settings.data_format)
    keras.utils.set_random_seed(0)


def batch(settings, method=ORDINARY):
    """The images and labels of a step, in the format of the method, in device
    memory."""
    channels_first = settings.data_format == "channels_first" or method in PEERS
    images = np.random.default_rng(0).random(
        (settings.batch, settings.size, settings.size, CHANNELS), dtype="float32"
    )
    if channels_first:
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    # PyTorch's own functions accept only 64-bit labels.
    labels = (
        np.arange(settings.batch, dtype="int64" if method in PEERS else "int32")
        % CLASSES
    )
    return ops.convert_to_tensor(images), ops.convert_to_tensor(labels)


def image_shape(settings):
    """The shape of an image, in the data format of the settings."""
    sides = settings.size, settings.size
    return (
        (CHANNELS, *sides)
        if settings.data_format == "channels_first"
        else (*sides, CHANNELS)
    )


def trainer(settings, method, timesteps):
    """A model with `train_on_batch(images, labels)`, compiled with SGD and
    cross-entropy.

    Args:
        settings: `Settings`.
        method: A name of `recipes.methods` or `PEERS`, or `ORDINARY` for the same
            network without time.
        timesteps: Integer T; ignored for `ORDINARY`.
    """
    if method in PEERS:
        return _peers_trainer(settings, method, timesteps)
    chosen = methods.settings_of("rate-multi" if method == ORDINARY else method)
    normalization = chosen.get("normalization", "batch")
    build = getattr(models, settings.network)
    # A transformer has no `width`, but a number of channels.
    has_width = "width" in inspect.signature(build).parameters
    model = build(
        input_shape=image_shape(settings),
        classes=CLASSES,
        timesteps=timesteps,
        gradient=methods.gradient_method(chosen),
        step_mode=chosen["step_mode"],
        **(
            {"width": settings.width}
            if has_width
            else {"dims": round(settings.width * TRANSFORMER_DIMS)}
        ),
        **({} if normalization == "batch" else {"normalization": normalization}),
    )
    if method == ORDINARY:
        model = relu_network(model.network)
    model.compile("sgd", loss(), jit_compile=settings.jit_compile)
    model.optimizer.build(model.trainable_variables)
    return model


def _peers_trainer(settings, method, timesteps):
    # Imported here because it imports PyTorch.
    from recipes.benchmark import peers

    peer = PEERS[method]
    model = peers.trainer(
        peer.package, settings.width, timesteps, settings.precision, settings.network
    )
    if peer.memopt:
        peers.optimize_memory(model, batch(settings, method)[0], peer.memopt)
    return model


def loss():
    """The loss of all cases, on logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


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
