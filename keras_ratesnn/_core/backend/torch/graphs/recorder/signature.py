"""The dependencies of the graph of a call besides the attributes of layers: the
properties of tensors, and how PyTorch runs at the moment."""

from typing import Any

import torch
from torch._C._dynamo.guards import TensorGuards

from keras_ratesnn._core.backend.torch.graphs.recorder.layer_attributes import (
    global_settings,
)
from keras_ratesnn._core.backend.torch.replicas import replicas


class Signatures:
    """The signatures of the calls of a model with the same weights.

    The properties of weights hardly ever change. But they may: `model.half()` and
    `parameter.data = ...` give a parameter another dtype or shape, and layers are
    frozen. PyTorch compares all of them with those of the last call in a fifth of the
    time that it takes to read them.
    """

    def __init__(self):
        self._numbers: dict[Any, int] = {}
        self._latest: dict[bool, _Latest] = {}

    def signature(self, weights, tensors):
        """The dependencies of a graph, hashable, or `None` if there can be no graph.

        Args:
            weights: List of tensors, of the same number at each call.
            tensors: List of the other arguments of the call.
        """
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or torch.is_anomaly_enabled()
            or is_checkpointed()
            or not are_plain(tensors)
        ):
            return None
        # Without gradients, PyTorch may not compare `requires_grad`.
        is_differentiated = torch.is_grad_enabled()
        latest = self._latest.get(is_differentiated)
        if latest is None or not latest.comparison.check(*weights):
            if not are_plain(weights):
                return None
            number = self._numbers.setdefault(_properties(weights), len(self._numbers))
            latest = self._latest[is_differentiated] = _Latest(weights, number)
        devices = latest.devices | _devices(tensors)
        # Keras computes shapes on the device "meta".
        if "meta" in devices or any(map(torch.is_autocast_enabled, devices)):
            return None
        return (
            is_differentiated,
            replicas.count(),
            global_settings(),
            latest.number,
            _properties(tensors),
        )


class _Latest:
    """The properties of the weights of the latest call.

    Attributes:
        number: Integer that stands for them: a signature is hashed at each call.
        devices: Set of the kinds of devices.
        comparison: Its `check(*weights)` says whether weights have these properties.
    """

    def __init__(self, weights, number):
        self.number = number
        self.devices = _devices(weights)
        sizes: list[Any] = [list(weight.shape) for weight in weights]
        strides: list[Any] = [list(weight.stride()) for weight in weights]
        self.comparison = TensorGuards(
            *weights, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        )


def are_plain(tensors):
    """Whether all tensors are of PyTorch's own class, or of that of its weights."""
    return {torch.Tensor, torch.nn.Parameter}.issuperset(map(type, tensors))


def _properties(tensors):
    return tuple(
        (
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
        )
        for tensor in tensors
    )


def _devices(tensors):
    devices = {tensor.device for tensor in tensors}
    return {device.type for device in devices}


def is_checkpointed():
    """Whether this runs inside `torch.utils.checkpoint`, which needs each call to store
    the same tensors as the first one."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"
