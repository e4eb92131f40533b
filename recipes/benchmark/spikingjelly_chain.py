"""A trained chain of layers in SpikingJelly, with the same weights: the shipped Fashion-MNIST network, for example."""

import keras
import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import keras_ratesnn


class Scale(nn.Module):
    """x · scale + offset of pixels `(batch, height, width, channels)`, in PyTorch's axis order."""

    def __init__(self, scale, offset):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return (x.to(torch.float32) * self.scale + self.offset).permute(0, 3, 1, 2)


class Chain(nn.Module):
    """A chain of layers that runs over time as in keras_ratesnn: what comes before the first neurons runs once.

    Args:
        model: A `SpikingModel` whose network is a chain of the layers that `module_of` knows.
    """

    def __init__(self, model):
        super().__init__()
        modules = [module_of(layer) for layer in model.network.layers if not isinstance(layer, keras.layers.InputLayer)]
        first = next(index for index, module in enumerate(modules) if isinstance(module, neuron.LIFNode))
        self.timesteps = model.timesteps
        self.stem, self.over_time = nn.Sequential(*modules[:first]), nn.Sequential(*modules[first:])
        functional.set_step_mode(self.over_time, "m")
        self.eval()

    def forward(self, pixels):
        functional.reset_net(self.over_time)
        current = self.stem(pixels)
        return self.over_time(current.expand(self.timesteps, *current.shape).contiguous()).mean(0)


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
