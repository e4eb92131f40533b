"""Rate training with time windows: one window gives the paper's gradient, one window
per step exactly BPTT's."""

import zipfile

import keras
import numpy as np
import pytest
from dual_numbers import Dual, as_dual, spike
from helpers import (
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    mlp,
    response,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

T = 4


def network():
    """A network for windows: shared statistics, learned neurons, both kinds of reset, a
    mask, pooling, a skip connection."""
    inputs = keras.Input((6, 6, 2), dtype=keras.config.dtype_policy().compute_dtype)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    x = rsnn.layers.ParametricLIF(learn_threshold=True, per_channel=True)(x)
    y = layers.Dropout(0.3, seed=1)(
        layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
    )
    y = rsnn.layers.LIF(0.5, reset="hard", v_reset=-0.2, detach_reset=False)(
        layers.BatchNormalization()(y)
    )
    x = layers.MaxPooling2D(2)(rsnn.layers.IF(threshold=0.7)(x + y))
    # Not a Dense layer: on PyTorch, Keras computes those in float32, whatever their
    # dtype.
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(3, 2)(x)))


def gradients(gradient, step_mode, has_time, timesteps=T, **kwargs):
    keras.utils.set_random_seed(0)
    x, y = data(6, (timesteps, 6, 6, 2) if has_time else (6, 6, 2))
    model = spiking(network(), timesteps, gradient, step_mode=step_mode, **kwargs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def each(y, outputs):
        labels = ops.repeat(y[:, None], timesteps, axis=1)
        return ops.mean(loss(labels, outputs * outputs))

    value, found = loss_and_gradients(
        model, x.astype("float64"), y, each if kwargs.get("return_sequences") else None
    )
    return [value, *found.values()]


def assert_same(left, right, rtol):
    for ours, theirs in zip(left, right, strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=rtol, atol=rtol * max(np.abs(theirs).max(), 1e-3)
        )


@pytest.mark.parametrize(
    ("step_mode", "has_time", "return_sequences"),
    [("multi", False, True), ("single", True, False)],
)
def test_a_window_for_each_step_is_bptt(step_mode, has_time, return_sequences):
    """A loss of each step too: each step's rate is its spikes."""
    with double_precision():
        by_bptt = gradients(
            "bptt", step_mode, has_time, return_sequences=return_sequences
        )
        windows = T if has_time else (1,) * T
        by_windows = gradients(
            Rate(windows=windows),
            step_mode,
            has_time,
            return_sequences=return_sequences,
        )
    assert_same(by_windows, by_bptt, 1e-9)


def test_more_windows_are_closer_to_bptt():
    def flat(gradient):
        found = gradients(gradient, "multi", has_time=False)
        return np.concatenate([np.ravel(part) for part in found])

    with double_precision():
        by_bptt = flat("bptt")
        by_windows = [flat(Rate(windows=windows)) for windows in (4, 2, 1)]
    distances = [np.linalg.norm(found - by_bptt) for found in by_windows]
    assert distances == sorted(distances)


# The triangle of eligibilities.
CURRENTS = np.random.default_rng(0).normal(0.5, 0.8, (7, 4, 5))


def naive_slopes(sizes, shifted, decay=0.6, threshold=0.7):
    """The derivatives of each window's rate with respect to a shift of the input in one
    window, with dual numbers."""
    ends = np.cumsum(sizes)
    state, rates = (
        as_dual(np.zeros(CURRENTS.shape[1:])),
        [as_dual(np.zeros(CURRENTS.shape[1:])) for _ in sizes],
    )
    for t, current in enumerate(CURRENTS):
        window = int(np.searchsorted(ends, t, side="right"))
        membrane = decay * state + Dual(current, 1.0 if window == shifted else 0.0)
        spikes = spike(membrane - threshold)
        state = membrane * (1.0 - spikes)
        rates[window] = rates[window] + spikes * (1.0 / sizes[window])
    return [rate.derivative for rate in rates]


@pytest.mark.parametrize("sizes", [(7,), (1, 6), (2, 2, 3), (1,) * 7])
def test_rates_have_the_derivatives_with_respect_to_a_shift_of_the_input_in_a_window(
    sizes,
):
    """All steps of a window have its rate, and their inputs the same shares in it."""
    starts = np.cumsum([0, *sizes[:-1]])
    # The same currents for each window whose rate is looked at, by its first step.
    currents = np.tile(np.moveaxis(CURRENTS, 0, 1), (len(sizes), 1, 1))
    weights = np.repeat(np.eye(7)[starts], 4, axis=0)[..., None] * np.ones(5)
    with double_precision():
        inputs = keras.Input((5,), dtype="float64")
        neurons = rsnn.layers.LIF(0.6, threshold=0.7, reset="hard", detach_reset=False)(
            inputs
        )
        model = spiking(
            keras.Model(inputs, neurons), 7, Rate(windows=sizes), return_sequences=True
        )
        _, (of_steps,), _ = response(model, [currents], [weights])
    of_steps = of_steps.reshape(len(sizes), 4, 7, 5)
    for shifted, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = of_steps[:, :, start : start + size]
        np.testing.assert_allclose(
            inside, np.repeat(inside[:, :, :1], size, axis=2), rtol=1e-12
        )
        np.testing.assert_allclose(
            inside.sum(axis=2), naive_slopes(sizes, shifted), rtol=1e-10, atol=1e-12
        )


# Windows across a network.
LAYERS = ("first", "second", "third")


def network_of_layers():
    """Neurons, one layer after the other, and a product of the spikes of two."""
    x = inputs = keras.Input((2, 3), dtype=keras.config.dtype_policy().compute_dtype)
    spikes = {}
    for name in LAYERS:
        x = layers.Conv1D(4, 1, use_bias=False, name=f"kernel_{name}")(x)
        x = spikes[name] = rsnn.layers.LIF(
            0.6, threshold=0.3, reset="hard", detach_reset=False, name=name
        )(x)
        x = layers.Multiply()([spikes["first"], x]) if name == "second" else x
    return keras.Model(
        inputs, layers.Conv1D(2, 1, use_bias=False, name="kernel_out")(x)
    )


def averaged(steps, sizes, counts):
    """Each step has the mean of the steps of its window that count: `(T, batch,
    ...)`."""
    weights = np.reshape(counts, (*counts.shape, *[1] * (steps.ndim - 2)))
    means, first = [], 0
    for size in sizes:
        part = slice(first, first + size)
        mean = np.sum(weights[part] * steps[part], axis=0) / np.maximum(
            np.sum(weights[part], axis=0), 1.0
        )
        means += [weights[t] * mean for t in range(first, first + size)]
        first += size
    return np.stack(means)


def naive_derivative(kernels, of_kernels, frames, counts, sizes):
    """The mean output and its derivative: kernels change by `of_kernels`, and each
    signal by its rate in each window."""

    def neurons(current, change):
        state, spikes = as_dual(np.zeros(current.shape[1:])), []
        for now, of_it, counted in zip(current, change, counts, strict=True):
            membrane = 0.6 * state + Dual(now, of_it)
            fired = spike(membrane - 0.3)
            after = membrane * (1.0 - fired)
            # A neuron waits while its sample has padding.
            here = counted[:, None, None]
            state = Dual(
                np.where(here, after.value, state.value),
                np.where(here, after.derivative, state.derivative),
            )
            spikes.append(Dual(here * fired.value, here * fired.derivative))
        values, changes = (
            np.stack([getattr(one, of) for one in spikes])
            for of in ("value", "derivative")
        )
        return values, averaged(changes, sizes, counts)

    def product(name, values, changes):
        return values @ kernels[name], averaged(values, sizes, counts) @ of_kernels[
            name
        ] + changes @ kernels[name]

    values, changes = frames, np.zeros(frames.shape)
    for name in LAYERS:
        values, changes = neurons(*product(name, values, changes))
        if name == "first":
            of_first = values, changes
        if name == "second":
            changes = (
                averaged(values, sizes, counts) * of_first[1]
                + averaged(of_first[0], sizes, counts) * changes
            )
            values = values * of_first[0]
    return [
        averaged(of_outputs, (len(frames),), counts)[0]
        for of_outputs in product("out", values, changes)
    ]


@pytest.mark.parametrize(
    ("step_mode", "lengths", "sizes"),
    [
        ("multi", (5,) * 4, (2, 3)),
        ("multi", (5, 5, 3, 2), (1, 2, 2)),
        ("single", (5, 5, 3, 2), (2, 3)),
    ],
)
def test_several_windows_across_a_network_have_the_gradient_of_a_slow_loop(
    step_mode, lengths, sizes
):
    """Frames, of unequal length too; in forward mode, one number of a kernel after the
    other."""
    random = np.random.default_rng(0)
    frames, upstream = (
        random.normal(0.4, 1.0, (5, 4, 2, 3)),
        random.normal(size=(4, 2, 2)),
    )
    counts = np.arange(5)[:, None] < np.array(lengths)
    # Numbers of steps that count are in single precision.
    rtol = 1e-9 if np.all(counts) else 1e-6
    with double_precision():
        network = network_of_layers()
        for weight in network.weights:
            weight.assign(random.normal(0.2, 0.6, weight.shape))
        kernels = {
            name: to_numpy(network.get_layer(f"kernel_{name}").kernel)[0]
            for name in (*LAYERS, "out")
        }
        model = spiking(
            network,
            5,
            Rate(windows=sizes),
            step_mode=step_mode,
            mask_value=None if np.all(counts) else np.nan,
        )
        x = np.where(counts[..., None, None], frames, np.nan)
        _, found = loss_and_gradients(
            model,
            np.swapaxes(x, 0, 1),
            upstream,
            lambda y, outputs: ops.sum(y * outputs),
        )
    found = dict(zip(kernels, found.values(), strict=True))
    for name, kernel in kernels.items():
        for place in np.ndindex(kernel.shape):
            of_kernels = {
                other: np.zeros(values.shape) for other, values in kernels.items()
            }
            of_kernels[name][place] = 1.0
            _, change = naive_derivative(kernels, of_kernels, frames, counts, sizes)
            np.testing.assert_allclose(
                found[name][0][place], np.sum(upstream * change), rtol=rtol, atol=rtol
            )
        assert np.abs(found[name]).max() > 1e-2


# Arguments.
def test_an_integer_gives_the_first_steps_a_window_each():
    x, y = data(6, (6, 6))
    shared = mlp()
    by_integer, same, other = (
        loss_and_gradients(spiking(shared, 6, Rate(windows=windows)), x, y)[1]
        for windows in (3, (1, 1, 4), (4, 1, 1))
    )
    assert_same(by_integer.values(), same.values(), 1e-6)
    assert any(
        np.abs(by_integer[path] - gradient).max() > 1e-3
        for path, gradient in other.items()
    )


@pytest.mark.parametrize(
    ("windows", "timesteps", "step_mode"), [(5, 4, "multi"), ((1, 2), 4, "single")]
)
def test_windows_that_do_not_fit_the_steps_are_an_error_in_training_alone(
    windows, timesteps, step_mode
):
    model = compiled(
        spiking(
            timesteps=timesteps, gradient=Rate(windows=windows), step_mode=step_mode
        )
    )
    x, y = data()
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"`windows` must be .*timesteps=4"):
        model.fit(x, y, verbose=0)
    model.timesteps = sum(windows) if isinstance(windows, tuple) else windows
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("windows", [0, -1, 1.5, True, (), (1, 0), "two", None])
def test_invalid_windows_are_refused(windows):
    with pytest.raises((TypeError, ValueError), match=r"`windows(\[1\])?` must "):
        Rate(windows=windows)


BY_LAYER = (
    r"^`windows` must be the same in all layers. Received: windows=\{'lif': "
    r"2\}. Pass .* windows=2, or .* windows=\(1, 3\).$"
)


def test_windows_by_layer_are_an_error_that_says_what_to_pass_also_in_a_saved_file(
    tmp_path,
):
    with pytest.raises(ValueError, match=BY_LAYER):
        Rate(windows={"lif": 2})
    spiking(timesteps=4, gradient=Rate(windows=2)).save(tmp_path / "saved.keras")
    with (
        zipfile.ZipFile(tmp_path / "saved.keras") as saved,
        zipfile.ZipFile(tmp_path / "by_layer.keras", "w") as by_layer,
    ):
        for name in saved.namelist():
            by_layer.writestr(
                name,
                saved.read(name).replace(b'"windows": 2', b'"windows": {"lif": 2}'),
            )
    with pytest.raises(ValueError, match=BY_LAYER):
        keras.saving.load_model(tmp_path / "by_layer.keras")


def test_last_step_statistics_need_one_window():
    with pytest.raises(ValueError, match=r"last_step_statistics=True.*windows=2"):
        Rate(windows=2, last_step_statistics=True)
