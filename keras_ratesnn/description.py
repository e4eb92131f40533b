"""Firing rates and cost of a spiking model on a batch of data: a table with advice."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.base import GradientMethod, Run
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.signals import Signal
from keras_ratesnn.spiking_model import SpikingModel

NEARLY_ALL = 0.95
"""A layer with at least this fraction of silent, or of saturated, neurons gets a warning."""


@dataclasses.dataclass(frozen=True)
class NeuronLayer:
    """The activity of a neuron layer on a batch.

    Args:
        name: String, the name of the layer.
        output_shape: Tuple, the shape of its output without batch and time.
        firing_rate: Float, spikes per neuron and time step.
        silent: Float, the fraction of neurons that never spiked, for any sample at any step.
        saturated: Float, the fraction of neurons that spiked for every sample at every step.
    """

    name: str
    output_shape: tuple[int, ...]
    firing_rate: float
    silent: float
    saturated: float

    @property
    def neurons(self) -> int:
        return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class Description:
    """The result of `describe`; it can be printed.

    Args:
        name: String, the name of the network.
        samples: Integer, the size of the batch.
        timesteps: Integer T.
        layers: Tuple of `NeuronLayer`, in execution order, with one entry for each call of a layer.
        parameters: Integer, the number of trainable parameters.
        synaptic_operations: Float, additions per sample: nonzero inputs over all steps, times the synapses that they feed.
        first_multiply_adds: Float, multiply-adds per sample of the layers that see the same input at every step and run
            once.
        dense_multiply_adds: Float, multiply-adds per sample of the same network without spikes and time.
        not_counted: Tuple of strings, names of layers with weights whose operations are not counted.
    """

    name: str
    samples: int
    timesteps: int
    layers: tuple[NeuronLayer, ...]
    parameters: int
    synaptic_operations: float
    first_multiply_adds: float
    dense_multiply_adds: float
    not_counted: tuple[str, ...]

    @property
    def dead(self) -> tuple[NeuronLayer, ...]:
        """The layers in which no neuron spiked."""
        return tuple(layer for layer in self.layers if layer.firing_rate == 0)

    @property
    def warnings(self) -> list[str]:
        """Problems that were found, with advice: a list of strings."""
        found = []
        if self.dead:
            found.append(
                f"DEAD: no neuron spikes in {_names(self.dead)}. The kernels that follow have a gradient of exactly zero, and "
                "the output does not depend on earlier layers. For the first dead layer: lower its threshold, put a "
                "BatchNormalization before it, start from larger weights, scale up the inputs, use neurons that leak less, or "
                "use more time steps; spikify(..., calibrate=data) sets thresholds from data."
            )
        almost = [layer for layer in self.layers if layer.silent >= NEARLY_ALL and layer.firing_rate > 0]
        if almost:
            found.append(
                f"ALMOST DEAD: at least {NEARLY_ALL:.0%} of the neurons never spike in {_names(almost)}. Try what helps dead "
                "layers, or a larger batch here if this one is small."
            )
        saturated = [layer for layer in self.layers if layer.saturated >= NEARLY_ALL]
        if saturated:
            found.append(
                f"SATURATED: at least {NEARLY_ALL:.0%} of the neurons spike at every step in {_names(saturated)}. They "
                "carry no information about the input: raise the threshold, put a BatchNormalization before them, or lower the "
                "learning rate."
            )
        return found

    def __str__(self) -> str:
        columns = ("neuron layer", "output shape", "neurons", "firing rate", "silent", "saturated")
        rows = [
            (
                layer.name,
                str(layer.output_shape),
                f"{layer.neurons:,}",
                f"{layer.firing_rate:.4f}",
                f"{layer.silent:.1%}",
                f"{layer.saturated:.1%}",
            )
            for layer in self.layers
        ]
        lines = [f"{self.name}: {self.samples} samples, {self.timesteps} time steps", *_table(columns, rows)]
        lines.append(f"Trainable parameters: {self.parameters:,}")
        lines.append(
            f"A sample takes {self.synaptic_operations:,.0f} synaptic operations and {self.first_multiply_adds:,.0f} "
            f"multiply-adds before the first spikes; without spikes the network takes {self.dense_multiply_adds:,.0f} "
            "multiply-adds."
        )
        if self.not_counted:
            lines.append(f"Not counted: {', '.join(self.not_counted)}")
        return "\n".join([*lines, *self.warnings])


def describe(model: SpikingModel, x: Structure, print_fn: Callable[[str], object] | None = print) -> Description:
    """Describes the activity of a model's neurons on a batch of data, and its computational cost.

    If a model does not learn, the reason is nearly always a layer whose neurons never spike. The table shows such layers, and
    a warning names them. The model runs in inference mode; its state does not change.

    A synaptic operation is the addition of a weight for a spike: each nonzero input at each step, times the mean fan-out of the
    layer's inputs. Inputs that are neither 0 nor spikes (an average of spikes, a normalised sum) count like spikes. Dense,
    einsum and convolution layers are counted.

    Example:

    >>> network = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, kernel_initializer="ones", name="hidden"),
    ...     keras_ratesnn.layers.IF(name="neurons"),
    ...     keras.layers.Dense(2, name="outputs"),
    ... ], name="tiny")
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> description = keras_ratesnn.describe(model, np.full((16, 4), 0.125, "float32"))
    tiny: 16 samples, 4 time steps
    neuron layer  output shape  neurons  firing rate  silent  saturated
    -------------------------------------------------------------------
    neurons       (8,)                8       0.5000    0.0%       0.0%
    Trainable parameters: 58
    A sample takes 32 synaptic operations and 32 multiply-adds before the first spikes; without spikes the network takes
    48 multiply-adds.
    >>> description.layers[0].firing_rate
    0.5

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        print_fn: Function that prints a string; `None` prints nothing. Defaults to `print`.

    Returns:
        A `Description`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
    """
    if not isinstance(model, SpikingModel):
        raise TypeError(
            f"`model` must be a SpikingModel. Received: model={model!r} of type {type(model).__name__}. Wrap a network with "
            "neurons in SpikingModel(network, timesteps=4), or convert one without neurons with spikify."
        )
    recording = _Recording()
    observed = SpikingModel(model.network, model.timesteps, gradient=recording)
    # What is counted is counted by the Python code of the rule.
    observed.compile(jit_compile=False)
    x = keras.tree.map_structure(ops.convert_to_tensor, x)
    with backend.no_gradient():
        observed(x, training=False)
    rule = recording.rule
    description = Description(
        name=model.network.name,
        samples=len(keras.tree.flatten(x)[0]),
        timesteps=model.timesteps,
        layers=tuple(rule.layers),
        parameters=sum(math.prod(variable.shape) for variable in model.trainable_variables),
        synaptic_operations=rule.synaptic_operations,
        first_multiply_adds=rule.first_multiply_adds,
        dense_multiply_adds=rule.dense_multiply_adds,
        not_counted=tuple(dict.fromkeys(rule.not_counted)),
    )
    if print_fn is not None:
        print_fn(str(description))
    return description


class _Recording(GradientMethod):
    """Not for training: a plain run whose rule is read afterwards."""

    def call(self, run: Run) -> Structure:
        order = run.new_order()
        self.rule = _RecordingRule(order, run.training, with_gradient=False)
        return order.run(self.rule, run)


class _RecordingRule(ForwardRule):
    """The plain spiking network; records the activity of neurons and synapses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.layers: list[NeuronLayer] = []
        self.synaptic_operations = 0.0
        self.first_multiply_adds = 0.0
        self.dense_multiply_adds = 0.0
        self.not_counted: list[str] = []

    def __call__(self, call: Call) -> Structure:
        outputs = super().__call__(call)
        if call.kind.multiply_adds is not None:
            self._count(call, call.signals[0], outputs)
        elif _has_matrices(call.operation):
            self.not_counted.append(call.operation.name)
        return outputs

    def neuron(self, call: Call) -> Signal:
        signal = super().neuron(call)
        spikes = _array(signal.value)
        share = spikes.mean(axis=0)
        self.layers.append(
            NeuronLayer(
                name=call.operation.name,
                output_shape=tuple(int(size) for size in spikes.shape[1:]),
                firing_rate=float(spikes.mean()),
                silent=float(np.mean(share == 0)),
                saturated=float(np.mean(share == 1)),
            )
        )
        return signal

    def _count(self, call: Call, signal: Signal, outputs: Signal) -> None:
        dense = call.kind.multiply_adds(  # type: ignore[misc]  # The caller has seen that there is one.
            call.operation, tuple(signal.value.shape), tuple(outputs.value.shape)
        )
        self.dense_multiply_adds += dense
        if signal.static:
            self.first_multiply_adds += dense
        else:
            share = float(np.mean(_array(signal.value) != 0))
            self.synaptic_operations += dense * self.order.timesteps * share


def _array(tensor: Tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, time_axis.accumulation_dtype(tensor.dtype)))


def _has_matrices(operation: keras.Operation) -> bool:
    """Whether an operation has weights other than scales and biases."""
    return any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))


def _names(layers: Iterable[NeuronLayer]) -> str:
    return ", ".join(dict.fromkeys(layer.name for layer in layers))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first two columns to the left, numbers to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]

    def line(row):
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(columns), "-" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]
