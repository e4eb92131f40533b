"""How far the two assumptions of the rate gradient hold: errors do not depend on when
neurons spike."""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import Signal
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.analysis.gradients import _training
from keras_ratesnn.gradients import Rate
from keras_ratesnn.gradients.extend import NeuronHandler, with_neurons
from keras_ratesnn.gradients.handlers.neuron import NeuronState
from keras_ratesnn.gradients.observing import Observing
from keras_ratesnn.gradients.time import derivative
from keras_ratesnn.spiking_model import SpikingModel


@dataclasses.dataclass(frozen=True, eq=False)
class Independence:
    """The result of `independence`.

    Args:
        timesteps: Integer T.
        neurons: Tuple of strings, the names of the L neuron layers.
        a1_cosine: Array `(L,)`: the cosine similarity between E[δ_t κ_t] and E[δ_t]
            E[κ_t]; NaN where one is zero.
        a1_correlation: Array `(L,)`: the correlation over time of δ_t and κ_t; 0 where
            one of them does not change.
        kernels: Tuple of strings, the names of the K layers with kernels whose input
            changes over time.
        a2_cosine: Array `(K,)`: the cosine similarity between E[δ_t s_t] and E[δ_t]
            E[s_t].
        a2_correlation: Array `(K,)`: the correlation over time of δ_t and s_t; NaN
            where a layer transforms its kernel.
    """

    timesteps: int
    neurons: tuple[str, ...]
    a1_cosine: np.ndarray
    a1_correlation: np.ndarray
    kernels: tuple[str, ...]
    a2_cosine: np.ndarray
    a2_correlation: np.ndarray

    def plot(self) -> Any:
        """Draws cosines and correlations of each layer.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        width = 2 * _figures.width_for(max(len(self.neurons), len(self.kernels))) - 2.5
        figure, panels = _figures.new_figure(
            width, 4.6, 2, 2, sharex="col", sharey="row"
        )
        titles = "A1: E[δκ] and E[δ] E[κ]", "A2: E[δs] and E[δ] E[s]"
        layers = self.neurons, self.kernels
        cosines = self.a1_cosine, self.a2_cosine
        correlations = self.a1_correlation, self.a2_correlation
        lowest = np.nanmin(np.hstack(cosines), initial=0.95) - 0.05
        largest = 1.2 * np.nanmax(np.abs(np.hstack(correlations)), initial=0.01)
        for column, names in enumerate(layers):
            above, below = panels[:, column]
            positions = np.arange(len(names))
            above.plot(positions, cosines[column], color="black", marker="o")
            title = f"{titles[column]}, T = {self.timesteps}"
            above.set_title(title, fontsize="medium")
            above.set_ylim(lowest, 1.01)
            above.grid(alpha=0.3, axis="y")
            below.plot(positions, correlations[column], color="black", marker="s")
            below.set_ylim(-largest, largest)
            _figures.name_layers(below, names)
        panels[0, 0].set_ylabel("cosine")
        panels[1, 0].set_ylabel("correlation")
        return figure


def independence(
    model: SpikingModel, x: Structure, y: Any, loss: Any = None
) -> Independence:
    """Measures on a batch how far the assumptions of the rate gradient hold (A1 and A2,
    figure 3 of Yu et al.).

    BPTT's gradient is a time mean of products, the rate gradient a product of time
    means. E is the mean over the T steps:

    * A1, for each neuron: E[δ_t κ_t] ≈ E[δ_t] E[κ_t], with the error of a spike δ_t =
      ∂L/∂s_t and the sensitivity of a spike to the input, κ_t = Σ_τ ∂s_t/∂I_τ. The
      cosine compares the two sides over all neurons and samples.
    * A2, for each kernel: E[δ_t s_t] ≈ E[δ_t] E[s_t], with the error δ_t of the layer's
      output at step t and its input s_t: spikes, or what layers in between compute from
      spikes. The left side is BPTT's gradient, divided by T. The cosine compares the
      two sides over the weights of the kernel. If the input of a layer is the same at
      every step, both sides are equal, so the layer is left out.

    The correlation is that of the two factors over time: their covariance over the T
    steps, summed over samples and over all neurons (A1) or synapses (A2), divided by
    the square root of the product of their summed variances. It is 0 if the assumption
    holds on average.

    Errors are those of BPTT in multi-step mode, with batch statistics as in training.
    The model is not changed.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras_ratesnn.layers.LIF(name="first")(keras.layers.Dense(8)(inputs))
    >>> x = keras_ratesnn.layers.LIF(name="second")(
    ...     keras.layers.Dense(8, name="between")(x)
    ... )
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras.layers.Dense(2, name="outputs")(x)), timesteps=4
    ... )
    >>> found = independence(model, np.random.rand(8, 4), np.ones((8, 2)), loss="mse")
    >>> found.neurons, found.kernels
    (('first', 'second'), ('between', 'outputs'))

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.fit`. It is processed as one batch.
        y: Its labels, as for the loss.
        loss: The loss, as in `compile`. Defaults to `None`, that of the compiled model.

    Returns:
        `Independence`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If there is no loss, neurons depend on each other, `x` has padding,
            `x` and `y` do not have the same number of samples, or a label is of no
            class.

    Source: Yu et al., NeurIPS 2024, section 4.2 and figure 3.
    """
    training = _training.Training(model, x, y, loss)
    if not _observation.steps_that_count(model, training.x).all():
        raise ValueError(
            "`x` must be sequences of equal length: a covariance over time needs the "
            "same steps of all samples. Received: steps that are padding by "
            f"mask_value={model.mask_value}. Pass sequences of one length, and set "
            "`timesteps`."
        )
    Rate().check(_graph.neurons_of(_graph.as_graph(model.network)))
    factors = _factors(training)
    errors = _errors(training, factors)
    a1, a2 = {}, {}
    for factor, error in zip(factors, errors, strict=True):
        if factor.kernel is None:
            a1[factor.name] = _first_assumption(factor, error, model.timesteps)
        else:
            a2[factor.name] = _second_assumption(factor, error, model.timesteps)
    a1_cosine, a1_correlation = np.array([*a1.values()]).reshape(-1, 2).T
    a2_cosine, a2_correlation = np.array([*a2.values()]).reshape(-1, 2).T
    return Independence(
        model.timesteps,
        tuple(a1),
        a1_cosine,
        a1_correlation,
        tuple(a2),
        a2_cosine,
        a2_correlation,
    )


class _Factor(NamedTuple):
    """The factor that δ_t meets, `(batch * T, ...)`: κ_t at neurons, or the input of an
    operation at a kernel of it.

    `like` is the tensor that the error δ_t belongs to: the spikes of the neurons, or
    the output of the operation.
    """

    name: str
    values: Tensor
    like: Tensor
    operation: keras.Operation
    kernel: keras.Variable | None = None


def _factors(training):
    """The factors that the errors of a training step meet, in the order of the
    calls."""
    factors: list[_Factor] = []
    neurons, operations = _graph.Names(), _graph.Names()

    class WithSensitivity(NeuronHandler):
        def all_steps(self, state, inputs):
            context = dataclasses.replace(self.context, with_gradient=False)
            sensitivity = _SensitivityHandler(self.call, context)
            sensitivity.static = self.static
            _, (values,) = sensitivity.all_steps((), inputs)
            state, spikes = super().all_steps(state, inputs)
            name = neurons.add(self.operation.name)
            factors.append(_Factor(name, values, spikes[0], self.operation))
            return state, spikes

    def observe(call, outputs):
        kernels = _kernels_over_time(call)
        name = operations.add(call.operation.name) if kernels else ""
        inputs = call.signals[0].value if kernels else None
        for kernel in kernels:
            full_name = name if len(kernels) == 1 else f"{name} {kernel.name}"
            factors.append(
                _Factor(full_name, inputs, outputs.value, call.operation, kernel)
            )
        return outputs

    training.run(Observing(observe, with_neurons(WithSensitivity)))
    return factors


class _SensitivityHandler(NeuronHandler):
    """Gives κ_t = Σ_τ ∂s_t/∂I_τ: the derivative of the spikes along a constant shift of
    the input.

    Its time mean is the eligibility of the rate gradient. The record is the tangent of
    the state.
    """

    begins_incomplete = True

    def __init__(self, call, context):
        super().__init__(call, context)
        self.cell = self.operation.cell

    @property
    def fuses(self):
        return derivative.has_written_derivative(self.cell)

    def start(self, inputs):
        state = super().start(inputs)
        return state._replace(record=tree.map_leaves(lambda _: 0.0, state.cell))

    def advance(self, state, inputs, phase):
        _, cell, along, slope = derivative.step(self.cell, inputs[0], state.cell)
        distance_tangent, tangent = along(1.0, state.record, None)
        return NeuronState(cell, tangent), [time_axis.widen(slope * distance_tangent)]

    def at_once(self, currents, mask):
        cell, one = self.cell, currents[:1]
        membranes = cell.over_time(currents)
        shift = cell.over_time(ops.ones_like(one)) - cell.over_time(ops.zeros_like(one))
        sensitivity = cell.surrogate_derivative(membranes) * shift
        return NeuronState(membranes), time_axis.widen(sensitivity)

    def as_tensors(self, state):
        dtype = tree.flatten(state.cell)[0].dtype

        def as_tensor(x):
            return x if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype=dtype)

        return state._replace(record=tree.map_leaves(as_tensor, state.record))

    def regularization_of_step(self, outputs, t):
        """None: the outputs are not spikes."""


def _errors(training, factors):
    """The errors ∂L/∂(spikes or outputs), `(batch * T, ...)`, that each factor
    meets."""
    taps = _Taps()
    zeros = [ops.zeros_like(factor.like) for factor in factors]
    _, errors = training.gradients(Observing(taps.add), "multi", [], zeros, taps.start)
    return [
        zero if error is None else error
        for zero, error in zip(zeros, errors, strict=True)
    ]


class _Taps:
    """Adds zeros to the outputs that factors meet, so that the loss is differentiated
    with respect to them."""

    def start(self, *zeros):
        self._remaining = iter(zeros)

    def add(self, call, outputs):
        for _ in [call] if _observation.is_neuron(call) else _kernels_over_time(call):
            value = outputs.value
            changed = value + next(self._remaining)
            outputs = Signal(keras_internals.masked_as(changed, value))
        return outputs


def _kernels_over_time(call):
    """The trainable kernels of a call that is affine in an input which changes over
    time, a list."""
    known = call.kind.affine and call.kind.multiply_adds is not None
    if not known or call.signals[0].static:
        return []
    return [
        variable
        for variable in call.operation.trainable_variables
        if len(variable.shape) > 1
    ]


def _first_assumption(factor, error, timesteps):
    """`(cosine, correlation)` of A1, of a `_Factor` and the errors `(batch * T,
    ...)`."""
    error = _observation.unfolded(error, timesteps).astype("float64")
    sensitivity = _observation.unfolded(factor.values, timesteps).astype("float64")
    error_mean = error.mean(axis=1, keepdims=True)
    sensitivity_mean = sensitivity.mean(axis=1, keepdims=True)
    product_mean = (error * sensitivity).mean(axis=1)
    cosine = _training.cosine(product_mean, (error_mean * sensitivity_mean)[:, 0])
    error, sensitivity = error - error_mean, sensitivity - sensitivity_mean
    return cosine, _correlation(
        np.sum(error * sensitivity), np.sum(error**2), np.sum(sensitivity**2)
    )


def _second_assumption(factor, error, timesteps):
    """`(cosine, correlation)` of A2, of a `_Factor` and the errors `(batch * T,
    ...)`."""
    # In units of the largest error, of which squares do not vanish in float32.
    error = error / ops.maximum(ops.max(ops.abs(error)), _TINY)
    values = factor.values
    error_mean = time_axis.mean(error, timesteps)
    mean = time_axis.mean(values, timesteps)
    cosine = _training.cosine(
        _outer(factor, error, values), _outer(factor, error_mean, mean)
    )
    error = error - time_axis.repeat(error_mean, timesteps)
    values = values - time_axis.repeat(mean, timesteps)
    one_error, one_value = ops.ones_like(error), ops.ones_like(values)
    uses = _outer(factor, one_error, one_value)
    # A kernel that is used as it is meets each pair of output and input once.
    if not np.allclose(uses, np.round(uses), rtol=1e-5) or not np.round(uses).any():
        return cosine, float("nan")
    return cosine, _correlation(
        np.sum(_outer(factor, error, values)),
        np.sum(_outer(factor, ops.square(error), one_value)),
        np.sum(_outer(factor, one_error, ops.square(values))),
    )


_TINY = 1e-30


def _outer(factor, error, values):
    """The gradient of a kernel from errors of outputs and from inputs: δ ⊗ s, summed
    over rows, an array."""

    def outputs(kernel):
        with keras_internals.Replaced(
            [(factor.kernel, kernel)], engine.assigned_weight
        ):
            return [factor.operation(values)], ()

    kernel = engine.differentiable(ops.convert_to_tensor(factor.kernel.value))
    (gradient,), _ = engine.gradient_of(outputs, [kernel], [error])
    return _observation.array(gradient).astype("float64")


def _correlation(covariance, *variances):
    norm = float(np.sqrt(np.prod(np.maximum(variances, 0.0))))
    return float(covariance / norm) if norm else 0.0
