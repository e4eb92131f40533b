"""Layers of Keras and of the library with quantised kernels, for networks that
`keras_ratesnn.deploy.quantize_aware` makes.

In each call the kernel is s · W, integers W times scales s, both recomputed from its
weights w. The gradient goes straight through: that of w is that of s · W, with s
constant.

Source: Bengio et al., "Estimating or propagating gradients through stochastic neurons
for conditional computation", 2013.
"""

import dataclasses
from typing import Any

from keras import layers, ops

from keras_ratesnn._core import (
    call_kernels,
    checks,
    keras_internals,
    quantized_kernels,
    registry,
    time_axis,
)
from keras_ratesnn._core.annotations import Shape, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import kind_of_class
from keras_ratesnn.layers.weight_standardized import WSConv2D, WSDense

WEIGHT_TYPES = tuple(quantized_kernels.LARGEST)

_Axes = dict[str, tuple[int, ...]]
_LAST: _Axes = {"kernel": (-1,)}
_LAST_TWO: _Axes = {"kernel": (-2, -1)}
_SECOND_LAST: _Axes = {"kernel": (-2,)}
_SEPARABLE: _Axes = {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)}
_CHANNEL_AXES: dict[type, _Axes] = {
    **dict.fromkeys(
        (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, WSConv2D, WSDense),
        _LAST,
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _LAST_TWO),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        _SECOND_LAST,
    ),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _SEPARABLE),
}
"""The classes that have a quantised class, and the axes of the output channels of their
kernels."""


class QuantizedKernels(ConfigOfAttributes, layers.Layer):
    """Mixin for a layer class: the kernels that its calls use are quantised.

    The attributes of its kernels, such as `kernel`, are what calls use. The weights are
    as in the layer class: they have the same names, and regularisers, constraints and
    LoRA apply to them.

    Args:
        *args: As in the layer class.
        weight_type: `"int8"`, `"int4"` or `"ternary"`. Defaults to `"int8"`.
        per_channel: Boolean, whether each output channel has a scale; otherwise one is
            for all. Defaults to `True`.
        **kwargs: As in the layer class.
    """

    in_config = "weight_type", "per_channel"

    base: type
    """The layer class."""
    channel_axes: _Axes
    """The axes of the output channels of each kernel, by its name."""

    def __init__(
        self,
        *args: Any,
        weight_type: str = "int8",
        per_channel: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.weight_type = checks.one_of("weight_type", weight_type, WEIGHT_TYPES)
        self.per_channel = checks.boolean("per_channel", per_channel)

    def kernel_to_quantize(self, name: str = "kernel") -> Tensor:
        """w of a kernel in float32 or wider."""
        # The property of Dense and convolutions adds LoRA to the kernel.
        with_lora = getattr(self.base, name, None)
        if with_lora is None:
            weights = getattr(self, f"_{name}")
        else:
            weights = with_lora.fget(self)
        return time_axis.widen(ops.convert_to_tensor(weights))

    def used_kernel(self, name: str = "kernel") -> Tensor:
        """s · W of a kernel in float32 or wider, with the derivative 1 with respect to
        w."""
        with keras_internals.without_autocast():
            kernel = self.kernel_to_quantize(name)
            axes = self.shared_axes(name, kernel.shape)
            integers, scale = quantized_kernels.integers_and_scale(
                ops.stop_gradient(kernel), self.weight_type, axes, ops
            )
            used = integers * scale
            return engine.graft(used, kernel, 1.0) if engine.grad_enabled() else used

    def shared_axes(self, name: str, shape: Shape) -> tuple[int, ...]:
        """The axes of a kernel of this name and shape that share a scale."""
        channels = self.channel_axes[name] if self.per_channel else ()
        return tuple(
            axis for axis in range(len(shape)) if axis - len(shape) not in channels
        )


class _QuantizedStandardized(QuantizedKernels):
    """The mixin for layers that standardise their kernel first; `kernel` is what they
    standardise."""

    def kernel_to_quantize(self, name: str = "kernel") -> Tensor:
        return super().standardized_in_full_precision(self.kernel)

    def standardized_in_full_precision(self, kernel: Tensor) -> Tensor:
        return self.used_kernel()


def _used_kernel(name: str) -> property:
    """The attribute of a kernel, whose value is what calls use, and which keeps what is
    assigned to it."""

    def get(layer):
        return call_kernels.of(layer, name, lambda: layer.used_kernel(name))

    return property(get, lambda layer, value: setattr(layer, f"_{name}", value))


def _quantized(base):
    """The quantised class of a layer class, registered for saved models."""
    axes, name = _CHANNEL_AXES[base], f"Quantized{base.__name__}"
    attributes = {
        "__module__": __name__,
        "__doc__": f"A `{base.__name__}` with a quantised kernel, see "
        "`QuantizedKernels`.",
        "layer_kind": kind_of_class(base),
        "base": base,
        "channel_axes": axes,
    }
    if hasattr(base, "standardized_kernel"):
        return registry.register(type(name, (_QuantizedStandardized, base), attributes))
    # Those of Dense and convolutions save the attribute `kernel`, here not a weight.
    saving = {
        method: getattr(layers.Layer, method)
        for method in ("save_own_variables", "load_own_variables")
    }
    kernels = {kernel: _used_kernel(kernel) for kernel in axes}
    kind = dataclasses.replace(
        kind_of_class(base),
        kernels=lambda layer: {kernel: layer.used_kernel(kernel) for kernel in axes},
    )
    attributes = {**attributes, **saving, **kernels, "layer_kind": kind}
    return registry.register(type(name, (QuantizedKernels, base), attributes))


QUANTIZED: dict[type, type] = {base: _quantized(base) for base in _CHANNEL_AXES}
"""The quantised class of each layer class that has one."""
