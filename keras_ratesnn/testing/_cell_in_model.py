"""The checks of a cell in a network: its spikes through time, its gradients, its model on disk."""

import pathlib
import tempfile

import keras
import numpy as np

from keras_ratesnn.gradients import _element_wise, _eligibility
from keras_ratesnn.testing._cell_step import has_float64
from keras_ratesnn.testing._findings import require, require_same, to_numpy
from keras_ratesnn.testing._gradients import loss_and_gradients
from keras_ratesnn.testing._subject import BATCH, TIMESTEPS


class ShiftOfSamples(keras.layers.Layer):
    """Adds to each sample a weight of its own, of which the gradient is that of the input."""

    def build(self, input_shape):
        self.shift = self.add_weight(shape=(BATCH, *input_shape[1:]), initializer="zeros", name="input")

    def call(self, inputs):
        return inputs + self.shift

    def compute_output_shape(self, input_shape):
        return input_shape


def check_element_wise(subject):
    """The step acts on each neuron alone."""
    neuron = subject.model(subject.copy(), gradient="bptt").network.layers[-1]
    try:
        _element_wise.check(neuron)
    except ValueError as error:
        raise AssertionError(f"{error} If it is meant to, call check_cell with element_wise=False.") from error


def check_single_neurons(subject):
    """The layer gives what a loop over single neurons gives."""
    dtype = "float64" if has_float64() else "float32"
    single_shape = (1,) * len(subject.shape)
    cell = subject.copy(dtype=dtype, shape=single_shape, moved=False)
    wanted = np.zeros(subject.inputs.shape)
    for index in np.ndindex(subject.inputs.shape[1:]):
        for variable, value in zip(cell.variables, subject.weights, strict=True):
            of_neuron = np.broadcast_to(value, (1, *subject.shape))[(0, *index[1:])] if variable.trainable else value
            variable.assign(np.reshape(of_neuron, variable.shape))
        currents = subject.inputs[(slice(None), *index)].reshape(TIMESTEPS, 1, *single_shape)
        spikes, _ = subject.steps(cell, currents)
        wanted[(slice(None), *index)] = np.ravel(to_numpy(spikes))
    for step_mode in ("multi", "single"):
        model = subject.model(subject.copy(), gradient="bptt", step_mode=step_mode, return_sequences=True)
        require_same(
            np.moveaxis(to_numpy(model(subject.sequence())), 1, 0),
            wanted,
            f'A layer of {subject.name} with step_mode="{step_mode}" gives other spikes than a loop over single neurons in '
            f"{dtype}. Either the step treats neurons differently, or it loses precision. (Axes: step, sample, neurons.)",
        )


def check_rate_gradient(subject):
    """Of one layer with constant input, the rate gradient is BPTT's."""
    by_rate, by_bptt = (_gradients(subject, gradient) for gradient in ("rate", "bptt"))
    written = _eligibility.has_written_derivative(subject.cell)
    cause = "its step_derivative is not the derivative" if written else "forward mode finds another derivative"
    for name, expected in by_bptt.items():
        require_same(
            by_rate[name],
            expected,
            f"The rate gradient of {subject.name} by {name!r} is not BPTT's for one layer with constant input: {cause} of its "
            "step.",
            rtol=1e-4,
            atol=1e-6,
        )


def check_bptt(subject):
    """BPTT finds gradients, the same in both orders."""
    multi, single = (_gradients(subject, "bptt", step_mode) for step_mode in ("multi", "single"))
    for name, gradient in multi.items():
        finding = f"The BPTT gradient of {subject.name} by {name!r}"
        require(np.isfinite(gradient).all(), f"{finding} is not finite.")
        require_same(single[name], gradient, f"{finding} depends on the step mode.", rtol=1e-4, atol=1e-6)
    require(np.any(multi["input"]), f"The BPTT gradient of {subject.name} by its input is zero. Make spikes by `self.fire`.")


def check_compiled(subject):
    """A compiled model gives what it gives eagerly."""
    model = subject.model(subject.copy(), gradient="bptt", return_sequences=True)
    eager = to_numpy(model(subject.sequence()))
    compiled = to_numpy(model.predict_on_batch(subject.sequence()))
    require_same(compiled, eager, f"{subject.name} gives other spikes in a compiled model than eagerly.")


def check_saving(subject):
    """A model with the cell is the same after it was saved and loaded."""
    model = subject.model(subject.copy(), gradient="bptt")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        model.save(file)
        loaded = keras.saving.load_model(file)
    require_same(
        to_numpy(loaded.weights),
        to_numpy(model.weights),
        f"A model with {subject.name} has other weights after it was saved and loaded. Weights must be made in `build`.",
    )
    inputs = subject.inputs[0]
    require_same(
        to_numpy(loaded(inputs)),
        to_numpy(model(inputs)),
        f"A model with {subject.name} gives something else after it was saved and loaded.",
    )


def _gradients(subject, gradient, step_mode="multi"):
    """The gradients of a layer of neurons with constant input, by the name of the weight; by the input as `"input"`."""
    model = subject.model(subject.copy(), [ShiftOfSamples()], gradient=gradient, step_mode=step_mode)
    upstream = np.random.default_rng(1).normal(size=(BATCH, *subject.shape)).astype("float32")
    _, gradients = loss_and_gradients(model, subject.inputs[0], upstream)
    return {path.rsplit("/", 1)[-1]: found for path, found in gradients.items()}
