"""Rate training with time windows: one window gives the paper's gradient, one window
per step exactly BPTT's."""

import functools

import keras
import numpy as np
import pytest
from dual_numbers import Dual, as_dual, averaged, spike
from helpers import (
    assert_same,
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers import TemporalEffectiveBatchNormalization as TEBN

T = 5
LAYERS = ("first", "second", "third")


def network_of_layers(normalization=layers.Identity):
    """Neurons, one layer after the other, and a product of the spikes of two."""
    x = inputs = keras.Input((2, 3), dtype=keras.config.dtype_policy().compute_dtype)
    spikes = {}
    for name in LAYERS:
        # Not a Dense layer: on PyTorch, Keras computes those in float32, whatever their
        # dtype.
        x = layers.Conv1D(4, 1, use_bias=False, name=f"kernel_{name}")(x)
        neurons = LIF(0.6, threshold=0.3, reset="hard", detach_reset=False)
        x = spikes[name] = neurons(normalization(name=f"normal_{name}")(x))
        x = layers.Multiply()([spikes["first"], x]) if name == "second" else x
    outputs = layers.Conv1D(2, 1, use_bias=False, name="kernel_out")(x)
    network = keras.Model(inputs, outputs)
    random = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign(random.normal(0.2, 0.6, weight.shape))
    return network


def frames():
    """`(T, batch, 2, 3)`."""
    return np.random.default_rng(0).normal(0.4, 1.0, (T, 4, 2, 3))


def squares(y, outputs):
    return ops.sum(ops.square(outputs))


def test_a_window_for_each_step_is_bptt():
    """Of a loss of each step: each step's rate is its spikes. That of each layer is in
    the contract."""
    results = []
    with double_precision():
        for gradient in (Rate(windows=T), "bptt"):
            network = network_of_layers(functools.partial(TEBN, T))
            model = spiking(network, T, gradient, return_sequences=True)
            _, gradients = loss_and_gradients(model, frames()[0], frames()[0], squares)
            results.append(gradients)
    assert_same(*results, rtol=1e-9)


def naive_derivative(kernels, of_kernels, frames, counts, sizes):
    """The mean output and its derivative: kernels change by `of_kernels`, and each
    signal by its rate in each window."""

    def neurons(currents, changes):
        state, values, slopes = as_dual(np.zeros(currents.shape[1:])), [], []
        for current, change, counted in zip(currents, changes, counts, strict=True):
            membrane = 0.6 * state + Dual(current, change)
            fired = spike(membrane - 0.3)
            after = membrane * (1.0 - fired)
            # A neuron waits while its sample has padding.
            state = after * counted + state * (1.0 - counted)
            values.append(counted * fired.value)
            slopes.append(counted * fired.derivative)
        return np.stack(values), averaged(np.stack(slopes), sizes, counts)

    def product(name, values, changes):
        of_kernel = averaged(values, sizes, counts) @ of_kernels[name]
        return values @ kernels[name], of_kernel + changes @ kernels[name]

    values, changes = frames, np.zeros(frames.shape)
    for name in LAYERS:
        values, changes = neurons(*product(name, values, changes))
        if name == "first":
            first, of_first = values, changes
        if name == "second":
            changes = averaged(first, sizes, counts) * changes
            changes += averaged(values, sizes, counts) * of_first
            values = values * first
    return [
        averaged(outputs, (len(frames),), counts)[0]
        for outputs in product("out", values, changes)
    ]


def total(y, outputs):
    return ops.sum(y * outputs)


@pytest.mark.parametrize(
    ("step_mode", "lengths", "windows", "sizes"),
    [
        ("multi", (5,) * 4, (2, 3), (2, 3)),
        # The first steps have a window each.
        ("multi", (5, 5, 3, 2), 3, (1, 1, 3)),
        ("single", (5, 5, 3, 2), (2, 3), (2, 3)),
    ],
)
def test_several_windows_across_a_network_have_the_gradient_of_a_slow_loop(
    step_mode, lengths, windows, sizes
):
    """Frames, of unequal length too; in forward mode, one number of a kernel after the
    other."""
    upstream = np.random.default_rng(1).normal(size=(4, 2, 2))
    counts = (np.arange(T)[:, None] < np.array(lengths))[..., None, None]
    x, options = frames(), {}
    # Numbers of steps that count are in single precision.
    rtol = 1e-9
    if not np.all(counts):
        rtol, options = 1e-6, {"mask_value": np.nan}
        x = np.where(counts, x, np.nan)
    with double_precision():
        network = network_of_layers()
        method = Rate(windows=windows)
        model = spiking(network, T, method, step_mode=step_mode, **options)
        _, found = loss_and_gradients(model, x.swapaxes(0, 1), upstream, total)
    names = [*LAYERS, "out"]
    kernels = {
        name: to_numpy(network.get_layer(f"kernel_{name}").kernel.value)[0]
        for name in names
    }
    for name, gradient in zip(names, found.values(), strict=True):
        assert np.abs(gradient).max() > 1e-2
        for place in np.ndindex(kernels[name].shape):
            of_kernels = {name: np.zeros(kernels[name].shape) for name in names}
            of_kernels[name][place] = 1.0
            _, change = naive_derivative(
                kernels, of_kernels, frames(), 1.0 * counts, sizes
            )
            expected = np.sum(upstream * change)
            assert gradient[0][place] == pytest.approx(expected, rel=rtol, abs=rtol)


# Arguments.
@pytest.mark.parametrize(
    ("windows", "timesteps", "step_mode"), [(5, 4, "multi"), ((1, 2), 4, "single")]
)
def test_windows_that_do_not_fit_the_steps_are_an_error_in_training_alone(
    windows, timesteps, step_mode
):
    method = Rate(windows=windows)
    model = compiled(spiking(None, timesteps, method, step_mode=step_mode))
    x, y = data()
    outputs = model.predict(x, verbose=0)
    np.testing.assert_allclose(to_numpy(model(x)), outputs, rtol=1e-5)
    model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"`windows` must be .*timesteps=4"):
        model.fit(x, y, verbose=0)
    model.timesteps = sum(windows) if isinstance(windows, tuple) else windows
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("windows", [0, 1.5, (), (1, 0)])
def test_invalid_windows_are_refused(windows):
    with pytest.raises((TypeError, ValueError), match=r"`windows(\[1\])?` must "):
        Rate(windows=windows)


def test_last_step_statistics_need_one_window():
    with pytest.raises(ValueError, match=r"last_step_statistics=True.*windows=2"):
        Rate(windows=2, last_step_statistics=True)
