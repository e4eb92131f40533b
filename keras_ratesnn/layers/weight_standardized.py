"""Layers with standardised kernels, an alternative to batch normalisation."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import (
    call_kernels,
    checks,
    keras_internals,
    registry,
    time_axis,
)
from keras_ratesnn._core.annotations import Config, Shape, Tensor
from keras_ratesnn.layer_kinds import LayerKind, kind_of_class


def standardized(kernel: Tensor, gain: Tensor, epsilon: float = 1e-4) -> Tensor:
    """Scaled weight standardisation: gain · (W − mean W) / sqrt(var W · fan_in + ε).

    Mean and unbiased variance are taken over the fan_in weights of an output. The
    outputs then have variance gain² for inputs with mean square 1.

    Args:
        kernel: Tensor `(..., outputs)`.
        gain: Tensor `(outputs,)`.
        epsilon: Float. Defaults to `1e-4`.

    Source: Qiao et al., "Weight Standardization", 2019; Brock et al., "Characterizing
    signal propagation to close the performance gap in unnormalized ResNets", ICLR 2021.
    """
    fan_in = math.prod(kernel.shape[:-1])
    axes = tuple(range(len(kernel.shape) - 1))
    centered = kernel - ops.mean(kernel, axis=axes, keepdims=True)
    spread = ops.sum(ops.square(centered), axis=axes) * (fan_in / (fan_in - 1))
    return centered * (gain * ops.rsqrt(spread + epsilon))


class _WeightStandardized(keras.layers.Layer):
    """Mixin for a Keras layer class: adds the gain and standardises the kernel."""

    _outputs: str
    """The name of the attribute that is the number of outputs."""

    def __init__(self, *args: Any, epsilon: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epsilon = checks.real(
            "epsilon",
            epsilon,
            above=0,
            advice="It avoids division by zero if all weights are equal.",
        )
        if isinstance(self.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            raise ValueError(
                "`dtype` must not be a quantized policy: the kernel of "
                f"{type(self).__name__} is recomputed from its weights in each call. "
                f"Received: dtype={self.dtype_policy.name!r}. Use float32 or a mixed "
                "policy."
            )

    def build(self, input_shape: Shape) -> None:
        # Must come first: LoRA, which Keras may add in `build`, locks the layer.
        outputs = getattr(self, self._outputs)
        self.gain = self.add_weight(shape=(outputs,), initializer="ones", name="gain")
        super().build(input_shape)
        if math.prod(self.kernel.shape[:-1]) < 2:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} must have at least two weights "
                "for each output: a single weight is zero after standardisation. "
                f"Received: an input of shape {tuple(input_shape)}, and a kernel of "
                f"shape {tuple(self.kernel.shape)}. Use the Keras layer without "
                "standardisation here."
            )

    def standardized_kernel(self) -> Tensor:
        """The kernel that calls of the layer use."""
        return time_axis.cast(
            self.standardized_in_full_precision(self.kernel), self.compute_dtype
        )

    def _used_kernel(self, kernel: Tensor) -> Tensor:
        return call_kernels.of(
            self, "kernel", lambda: self.standardized_in_full_precision(kernel)
        )

    def standardized_in_full_precision(self, kernel: Tensor) -> Tensor:
        """The standardised kernel in float32 or wider, in which its statistics are
        computed."""
        with keras_internals.without_autocast():
            kernel = time_axis.widen(ops.convert_to_tensor(kernel))
            gain = time_axis.widen(ops.convert_to_tensor(self.gain))
            return standardized(kernel, gain, self.epsilon)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.built:
            store["gain"] = self.gain

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.gain.assign(store["gain"])

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}


def _kind(base: type) -> LayerKind:
    return dataclasses.replace(
        kind_of_class(base),
        output_factors=lambda layer: ("gain", (-1,)),
        kernels=lambda layer: {
            "kernel": layer.standardized_in_full_precision(layer.kernel)
        },
    )


@registry.register
class WSConv2D(_WeightStandardized, keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with scaled weight standardisation. It uses the kernel

        gain · (W − mean W) / sqrt(var W · fan_in + ε)

    with mean and unbiased variance over the fan_in weights of each output channel.
    `gain`, one per channel, is trainable and starts at 1. The layer replaces batch
    normalisation in networks that are trained step by step, for example with
    `gradient="ottt"`. In such networks spikes are scaled by 2.74 after each neuron
    layer (`keras.layers.Rescaling(2.74)`).

    `kernel` is W; initializers, regularisers, constraints and LoRA apply to W.

    Example:

    >>> layer = WSConv2D(8, 3, padding="same")
    >>> layer.compute_output_shape((1, 6, 6, 2))
    (1, 6, 6, 8)
    >>> outputs = layer(np.ones((1, 6, 6, 2)))
    >>> [variable.name for variable in layer.trainable_variables]
    ['gain', 'kernel', 'bias']

    Args:
        *args: `filters`, `kernel_size` and what follows them in `keras.layers.Conv2D`.
        epsilon: Float > 0, ε. Defaults to `1e-4`.
        **kwargs: Arguments of `keras.layers.Conv2D`, by their names.

    Raises:
        ValueError: If an output has only one weight, or the dtype policy is quantized.

    Source: Qiao et al., "Weight Standardization", 2019; Brock et al., ICLR 2021; Xiao
    et al., "Online Training Through Time for Spiking Neural Networks", NeurIPS 2022.
    """

    layer_kind = _kind(keras.layers.Conv2D)

    _outputs = "filters"

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(inputs, self._used_kernel(kernel))


@registry.register
class WSDense(_WeightStandardized, keras.layers.Dense):
    """A `keras.layers.Dense` with scaled weight standardisation, see `WSConv2D`; fan_in
    is the number of inputs.

    Example:

    >>> # The weights of each output add up to zero.
    >>> outputs = WSDense(3)(np.ones((1, 4)))
    >>> bool(np.abs(ops.convert_to_numpy(outputs)).max() < 1e-6)
    True

    Args:
        *args: `units` and what follows it in `keras.layers.Dense`.
        epsilon: Float > 0, ε. Defaults to `1e-4`.
        **kwargs: Arguments of `keras.layers.Dense`, by their names.

    Raises:
        ValueError: If there is only one input, or the dtype policy is quantized.

    Source: Qiao et al., 2019; Brock et al., ICLR 2021.
    """

    layer_kind = _kind(keras.layers.Dense)

    _outputs = "units"

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        outputs = ops.matmul(inputs, self._used_kernel(self.kernel))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)
