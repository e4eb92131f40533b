"""A trained chain of layers in SpikingJelly, with the same weights: the shipped Fashion-MNIST network, for example."""

import keras
import numpy as np
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

import keras_ratesnn
from recipes.benchmark.peers import SpikingJelly


class Scale(nn.Module):
    """x · scale + offset of pixels `(batch, height, width, channels)`, in PyTorch's axis order."""

    def __init__(self, scale, offset):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return (x.to(torch.float32) * self.scale + self.offset).permute(0, 3, 1, 2)


def chain(model):
    """The network of a chain of layers in SpikingJelly, in inference.

    Args:
        model: A `SpikingModel` whose network is a chain of the layers that `module_of` knows.
    """
    modules = [module_of(layer) for layer in model.network.layers if not isinstance(layer, keras.layers.InputLayer)]
    first = next(index for index, module in enumerate(modules) if isinstance(module, neuron.LIFNode))
    return SpikingJelly(nn.Sequential(*modules[:first]), nn.Sequential(*modules[first:]), model.timesteps).eval()


def module_of(source):
    """The module of a Keras layer on `channels_last` data."""
    if isinstance(source, keras.layers.Rescaling):
        return Scale(source.scale, source.offset)
    if isinstance(source, keras.layers.Conv2D):
        height, width, inputs, outputs = source.kernel.shape
        module = layer.Conv2d(inputs, outputs, (height, width), padding="same", bias=source.use_bias)
        return _with_values(module, weight=np.transpose(source.kernel, (3, 2, 0, 1)))
    if isinstance(source, keras.layers.BatchNormalization):
        module = layer.BatchNorm2d(source.gamma.shape[0], eps=source.epsilon)
        statistics = {"running_mean": source.moving_mean, "running_var": source.moving_variance}
        return _with_values(module, weight=source.gamma, bias=source.beta, **statistics)
    if isinstance(source, keras_ratesnn.layers.LIF):
        decay, threshold = source.cell.decay, source.cell.threshold
        return neuron.LIFNode(tau=1 / (1 - decay), decay_input=False, v_threshold=threshold, v_reset=None)
    if isinstance(source, keras.layers.AveragePooling2D):
        return layer.AvgPool2d(source.pool_size)
    if isinstance(source, keras.layers.GlobalAveragePooling2D):
        return layer.SeqToANNContainer(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(source, keras.layers.Dense):
        return _with_values(layer.Linear(*source.kernel.shape), weight=np.transpose(source.kernel), bias=source.bias)
    raise TypeError(f"no SpikingJelly module for layer {source.name!r} of type {type(source).__name__}")


def _with_values(module, **values):
    """The module with the values of Keras variables or arrays."""
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.as_tensor(np.array(keras.ops.convert_to_numpy(value))))
    return module
