"""Checks of a cell in a network: spikes over time, gradients, saving."""

import keras
import numpy as np

from keras_ratesnn.gradients import neuron_independence
from keras_ratesnn.gradients.time.derivative import has_written_derivative
from keras_ratesnn.testing._cell_step import has_float64
from keras_ratesnn.testing._findings import (
    require,
    require_close,
    require_same,
    saved_and_loaded,
    to_numpy,
)
from keras_ratesnn.testing._gradients import loss_and_gradients
from keras_ratesnn.testing._subject import BATCH, TIMESTEPS


class ShiftOfSamples(keras.layers.Layer):
    """Adds a separate weight to each sample; its gradient equals that of the input."""

    def build(self, input_shape):
        self.shift = self.add_weight(
            shape=(BATCH, *input_shape[1:]), initializer="zeros", name="input"
        )

    def call(self, inputs):
        return inputs + self.shift

    def compute_output_shape(self, input_shape):
        return input_shape


def check_element_wise(subject):
    """Checks that the step acts on each neuron independently."""
    neuron = subject.model(subject.copy(), gradient="bptt").network.layers[-1]
    try:
        neuron_independence.check(neuron)
    except ValueError as error:
        raise AssertionError(
            f"{error} If this is intended, call check_cell with element_wise=False."
        ) from error


def check_single_neurons(subject):
    """Checks that the layer gives the same spikes as a loop over single neurons, unless
    the cell draws random numbers, which depend on the number of neurons."""
    if subject.seeds:
        return
    dtype = "float64" if has_float64() else "float32"
    single_shape = (1,) * len(subject.shape)
    cell = subject.copy(dtype=dtype, shape=single_shape, moved=False)
    # Other weights act on all neurons in parts, unless there are more of them for more
    # neurons.
    per_neuron = {id(weight) for weight, _ in cell.weight_parts()}
    wanted = np.zeros(subject.inputs.shape)
    for index in np.ndindex(subject.inputs.shape[1:]):
        for variable, value in zip(cell.variables, subject.weights, strict=True):
            if id(variable) in per_neuron or np.shape(value) != tuple(variable.shape):
                value = np.broadcast_to(value, (1, *subject.shape))[(0, *index[1:])]
            variable.assign(np.reshape(value, variable.shape))
        currents = subject.inputs[(slice(None), *index)].reshape(
            TIMESTEPS, 1, *single_shape
        )
        spikes, _ = subject.steps(cell, currents)
        wanted[(slice(None), *index)] = np.ravel(to_numpy(spikes))
    for step_mode in ("multi", "single"):
        model = subject.model(
            subject.copy(), gradient="bptt", step_mode=step_mode, return_sequences=True
        )
        require_same(
            np.moveaxis(to_numpy(model(subject.sequence())), 1, 0),
            wanted,
            f'A layer of {subject.name} with step_mode="{step_mode}" gives different '
            "spikes from a loop over single neurons in "
            f"{dtype}. Either the step treats neurons differently, or it loses "
            "precision. (Axes: step, sample, neurons.)",
            # A third, the size of a normalised spike, differs between precisions.
            rtol=1e-6,
        )


def check_rate_gradient(subject):
    """Checks that for one layer with constant input the rate gradient equals BPTT's."""
    by_rate, by_bptt = _gradients(subject, "rate"), _gradients(subject, "bptt")
    cause = "forward mode finds a different derivative"
    if has_written_derivative(subject.copy()):
        cause = "its step_derivative is not the derivative"
    for name, expected in by_bptt.items():
        finding = (
            f"The rate gradient of {subject.name} with respect to {name!r} "
            "differs from BPTT's for one layer with constant"
        )
        require_close(by_rate[name], expected, f"{finding} input: {cause} of its step.")


def check_bptt(subject):
    """Checks that BPTT gives the same finite gradients in both step modes."""
    multi = _gradients(subject, "bptt", "multi")
    single = _gradients(subject, "bptt", "single")
    for name, gradient in multi.items():
        finding = f"The BPTT gradient of {subject.name} with respect to {name!r}"
        require(np.isfinite(gradient).all(), f"{finding} is not finite.")
        require_close(single[name], gradient, f"{finding} depends on the step mode.")
    zero = (
        f"The BPTT gradient of {subject.name} with respect to its input is zero. "
        "Compute spikes with `self.fire`."
    )
    require(np.any(multi["input"]), zero)


def check_compiled(subject):
    """Checks that a compiled model gives the same spikes as in eager mode, unless a
    compiler may draw other random numbers."""
    if subject.seeds:
        return
    model = subject.model(subject.copy(), gradient="bptt", return_sequences=True)
    eager = to_numpy(model(subject.sequence()))
    compiled = to_numpy(model.predict_on_batch(subject.sequence()))
    require_same(
        compiled,
        eager,
        f"{subject.name} gives different spikes in a compiled model and in eager mode.",
    )


def check_saving(subject):
    """Checks that a model with the cell is the same after saving and loading."""
    model = subject.model(subject.copy(), gradient="bptt")
    loaded, inputs = saved_and_loaded(model), subject.inputs[0]
    subject.rewind(loaded.network.layers[-1].cell)
    require_same(
        to_numpy(loaded.weights),
        to_numpy(model.weights),
        f"A model with {subject.name} has different weights after saving and loading. "
        "Weights must be created in `build`.",
    )
    require_same(
        to_numpy(loaded(inputs)),
        to_numpy(model(inputs)),
        f"A model with {subject.name} gives different outputs after saving and "
        "loading.",
    )


def _gradients(subject, gradient, step_mode="multi"):
    """The gradients of a neuron layer with constant input: a dict of weight names, and
    `"input"`, to arrays."""
    model = subject.model(
        subject.copy(), [ShiftOfSamples()], gradient=gradient, step_mode=step_mode
    )
    upstream = (
        np.random.default_rng(1).normal(size=(BATCH, *subject.shape)).astype("float32")
    )
    _, gradients = loss_and_gradients(model, subject.inputs[0], upstream)
    return {path.rsplit("/", 1)[-1]: array for path, array in gradients.items()}
