"""Analysis: each measurement is that of a count by hand in NumPy, and leaves the model
as it was."""

import functools
import sys

import helpers
import keras
import numpy as np
import pytest
from helpers import (
    compiled,
    double_precision,
    loss_and_gradients,
    mlp,
    naive_lif,
    spiking,
    to_numpy,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.layers import IF, LIF

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
T = 4


def network():
    """What an analysis meets: shared statistics, masks, pooling, a skip connection,
    learned neurons, a nested model."""
    inputs = keras.Input((6, 6, 2))
    x = LIF(name="first")(
        layers.BatchNormalization()(
            layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
        )
    )
    y = layers.Dropout(0.3, seed=1)(
        layers.Conv2D(4, 3, padding="same", name="inner")(x)
    )
    y = rsnn.layers.ParametricLIF(name="second")(layers.BatchNormalization()(y))
    pool, logits = layers.AveragePooling2D(2), layers.Dense(3, name="logits")
    head = keras.Sequential([keras.Input((6, 6, 4)), pool, layers.Flatten(), logits])
    return keras.Model(inputs, head(layers.Add()([x, y])))


def model_and_data():
    x, y = helpers.data(8, (6, 6, 2))
    return compiled(spiking(network(), T)), x, y


ACTIVITY = ("firing_rates", "energy", "raster", "membranes")
ANALYSES = {
    "gradient_agreement": {},
    "independence": {},
    "firing_rates": {},
    "energy": {},
    "raster": {"layer": "first"},
    "membranes": {"layer": "second"},
    "shuffle_in_time": {},
    "accuracy_over_time": {"timesteps": 6},
}


def analysed_by(name, model, x, y, **arguments):
    labels = [] if name in ACTIVITY else [y]
    return getattr(analysis, name)(model, x, *labels, **arguments)


@functools.cache
def trained_model_and_data():
    model, x, y = model_and_data()
    model.fit(x, y, verbose=0)
    return model, x, y


def state_of(model):
    """All that a measurement must not change."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    functions = model.train_function, model.predict_function
    settings = model.get_config(), model.gradient, model.step_mode, model.loss
    counts = len(model.losses), len(model.metrics)
    values = to_numpy([variable.value for variable in variables])
    return values, (functions, settings, counts)


def assert_draws_a_figure(found, folder):
    found.plot().savefig(folder / "figure.png")
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ANALYSES)
def test_the_model_is_left_as_it_was_and_the_result_draws_a_figure(name, tmp_path):
    model, x, y = trained_model_and_data()
    values, facts = state_of(model)
    keras.utils.set_random_seed(1)
    noise = to_numpy(keras.random.uniform((3,)))
    keras.utils.set_random_seed(1)
    found = analysed_by(name, model, x, y, **ANALYSES[name])
    assert_array_equal(to_numpy(keras.random.uniform((3,))), noise)
    new_values, new_facts = state_of(model)
    keras.tree.map_structure(assert_array_equal, values, new_values)
    assert new_facts == facts
    assert_draws_a_figure(found, tmp_path)


def test_a_network_without_any_gradient_has_an_empty_figure(tmp_path):
    inputs = keras.Input((6,))
    silent = LIF(threshold=100.0)(layers.Dense(8)(inputs))
    network = keras.Model(inputs, layers.Dense(3, use_bias=False)(silent))
    x, y = helpers.data(10, (6,))
    model = spiking(network, timesteps=T)
    found = analysis.gradient_agreement(model, x, y, loss=LOSS)
    assert np.isnan(found.cosine).all()
    assert np.isnan(found.norm_ratio).all()
    assert_draws_a_figure(found, tmp_path)


# Gradients.
@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("sltt", "single")],
)
def test_agreement_is_that_of_the_gradients_of_training(gradient, step_mode):
    x, y = helpers.data(8)
    model = spiking(mlp(), T, gradient, step_mode=step_mode)
    found = analysis.gradient_agreement(model, x, y, loss=LOSS)
    _, by_method = loss_and_gradients(model, x, y)
    model.gradient = "bptt"
    _, by_bptt = loss_and_gradients(model, x, y)
    kernels = [path for path in by_method if path.endswith("kernel")]
    assert found.layers == tuple(path.split("/")[0] for path in kernels)
    for index, path in enumerate(kernels):
        left, right = by_method[path].ravel(), by_bptt[path].ravel()
        norms = np.linalg.norm(left), np.linalg.norm(right)
        assert found.cosine[index] == pytest.approx(
            left @ right / np.prod(norms), abs=1e-5
        )
        assert found.norm_ratio[index] == pytest.approx(norms[0] / norms[1], rel=1e-4)


def test_no_method_is_compared_with_itself():
    x, y = helpers.data(8, (T, 6))
    model = compiled(spiking(mlp(), T))
    by_rate = analysis.gradient_agreement(model, x, y)
    assert (by_rate.method, by_rate.other) == ("rate", "bptt")
    windows = rsnn.gradients.Rate(windows=T)
    by_windows = analysis.gradient_agreement(model, x, y, other=windows)
    assert by_windows.other == f"rate(windows={T})"
    assert_allclose(by_windows.cosine, by_rate.cosine, atol=1e-4)
    message = r"`other` must be another method.*other='rate'.*gradient=Rate\(windows=1"
    with pytest.raises(ValueError, match=message):
        analysis.gradient_agreement(model, x, y, other="rate")
    model.gradient = "bptt"
    by_bptt = analysis.gradient_agreement(model, x, y)
    assert (by_bptt.method, by_bptt.other) == ("bptt", "rate")
    assert_allclose(by_bptt.cosine, by_rate.cosine, atol=1e-6)
    assert by_bptt.cosine.min() < 0.999
    callback = rsnn.callbacks.GradientAgreement(x, y)
    history = model.fit(x, y, callbacks=[callback], verbose=0).history
    assert history["gradient_cosine/dense"][0] < 0.999


def test_losses_of_weights_layers_and_several_outputs_count():
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, kernel_regularizer="l2")(inputs)
    spikes = LIF(activity_regularizer="l1")(hidden)
    net = keras.Model(
        inputs,
        {
            "a": layers.Dense(3, name="a")(spikes),
            "b": layers.Dense(1, name="b")(spikes),
        },
    )
    model = spiking(net, T)
    x, y = helpers.data(8)
    labels = {"a": y, "b": np.ones((8, 1), "float32")}
    losses, weights = {"a": LOSS, "b": "mse"}, {"a": 2.0, "b": 0.5}
    model.compile(keras.optimizers.SGD(1.0), losses, loss_weights=weights)
    found = analysis.gradient_agreement(model, x, labels)
    assert found.layers == ("dense", "a", "b")
    variables = model.trainable_variables
    kernels = [variable for variable in variables if variable.name == "kernel"]
    before = to_numpy([kernel.value for kernel in kernels])
    model.train_on_batch(x, labels)
    after = to_numpy([kernel.value for kernel in kernels])
    steps = [np.linalg.norm(a - b) for a, b in zip(before, after, strict=True)]
    assert_allclose(found.norms, steps, rtol=1e-3)


def mlp_independence():
    """A network of two dense layers, and A1 and A2 computed by hand from it: δ at the
    hidden spikes, κ, weights."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    first, second = layers.Dense(8, name="first"), layers.Dense(8, name="second")
    x = LIF(0.5, name="a")(first(inputs))
    x = LIF(0.5, name="b")(second(x))
    last = layers.Dense(3, name="last")
    return keras.Model(inputs, last(x)), first, second, last


def test_independence_is_that_of_a_program_by_hand():
    net, first, second, last = mlp_independence()
    x, y = helpers.data(16)
    x = 2 * x
    found = analysis.independence(spiking(net, T), x, y, loss=LOSS)
    weights = {}
    for layer in (first, second, last):
        weights[layer] = [
            array.astype("float64")
            for array in to_numpy([layer.kernel.value, layer.bias.value])
        ]

    def forward(currents):
        spikes, membranes, _ = naive_lif(currents, decay=0.5)
        slopes = (
            4
            / (1 + np.exp(-4 * (membranes - 1)))
            * (1 - 1 / (1 + np.exp(-4 * (membranes - 1))))
        )
        # κ_t = h_t ρ_t with ρ_t = 1 + λ ρ_{t−1}.
        rho = np.cumsum(0.5 ** np.arange(T))
        return spikes, slopes, slopes * rho.reshape(-1, 1, 1)

    def dense(layer, inputs):
        kernel, bias = weights[layer]
        return inputs @ kernel + bias

    def to_input(error, slopes):
        """∂L/∂I_τ = Σ_t δ_t ∂s_t/∂I_τ, where the reset carries no derivative."""
        return np.stack(
            [
                sum(error[t] * slopes[t] * 0.5 ** (t - tau) for t in range(tau, T))
                for tau in range(T)
            ]
        )

    a, _, a_kappa = forward(np.repeat(dense(first, x)[None], T, axis=0))
    b, b_slopes, b_kappa = forward(dense(second, a))
    logits = dense(last, b).mean(axis=0)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    output_error = np.repeat(
        ((probabilities - np.eye(3)[y]) / len(y) / T)[None], T, axis=0
    )
    b_error = output_error @ weights[last][0].T
    second_error = to_input(b_error, b_slopes)
    a_error = second_error @ weights[second][0].T

    def cosine(left, right):
        return np.sum(left * right) / np.linalg.norm(left) / np.linalg.norm(right)

    def correlation(left, right, product):
        left, right = left - left.mean(axis=0), right - right.mean(axis=0)
        ones = np.ones_like(left), np.ones_like(right)
        norm = np.sqrt(
            np.sum(product(left**2, ones[1])) * np.sum(product(ones[0], right**2))
        )
        return np.sum(product(left, right)) / norm if norm else 0.0

    def outer(error, values):
        return np.einsum("tbi,tbj->ij", values, error)

    assert found.neurons == ("a", "b")
    for index, (error, kappa) in enumerate(((a_error, a_kappa), (b_error, b_kappa))):
        expected = cosine(
            (error * kappa).mean(axis=0), error.mean(axis=0) * kappa.mean(axis=0)
        )
        assert found.a1_cosine[index] == pytest.approx(expected, abs=1e-4)
        assert found.a1_correlation[index] == pytest.approx(
            correlation(error, kappa, np.multiply), abs=1e-4
        )
    assert found.kernels == ("second", "last")
    for index, (error, spikes) in enumerate(((second_error, a), (output_error, b))):
        means = outer(error.mean(axis=0)[None], spikes.mean(axis=0)[None])
        assert found.a2_cosine[index] == pytest.approx(
            cosine(outer(error, spikes), means), abs=1e-4
        )
        assert found.a2_correlation[index] == pytest.approx(
            correlation(error, spikes, outer), abs=1e-4
        )
    assert found.a1_cosine[0] < 0.9999


@pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)
def test_independence_is_that_of_the_rows_that_are_not_masked():
    frames = np.random.default_rng(0).uniform(0.5, 2.0, (8, T, 3, 2)).astype("float32")
    frames[:, :, 2] = 0.0
    found, kernel = [], np.random.default_rng(1).normal(size=(12, 6))
    for rows in (3, 2):
        keras.utils.set_random_seed(0)
        inputs, head = keras.Input((rows, 2)), layers.Dense(6)
        x = LIF(name="neurons")(
            layers.Dense(4, bias_initializer="ones")(layers.Masking()(inputs))
        )
        network = keras.Model(inputs, layers.Dense(3)(LIF()(head(layers.Flatten()(x)))))
        head.kernel.assign(kernel[: 4 * rows])
        model = spiking(network, T)
        found.append(
            analysis.independence(
                model, frames[:, :, :rows], np.arange(8) % 3, loss=LOSS
            ).a1_cosine
        )
    assert found[1][0] < 0.9999
    assert_allclose(*found, rtol=1e-6)


def test_membranes_count_as_no_activity():
    inputs = keras.Input((2,))
    network = keras.Model(
        inputs, LIF(name="neurons", activity_regularizer="l2")(inputs)
    )
    analysis.membranes(spiking(network, T), np.ones((3, 2), "float32"), "neurons")
    assert not network.losses


def test_independence_holds_exactly_for_one_step():
    model, x, y = model_and_data()
    model.timesteps = 1
    found = analysis.independence(model, x, y)
    assert_allclose([*found.a1_cosine, *found.a2_cosine], 1.0, atol=1e-5)
    assert_array_equal([*found.a1_correlation, *found.a2_correlation], 0.0)


def test_a_transformed_kernel_has_a_cosine_but_no_correlation():
    standardised = rsnn.layers.WSDense(8, name="standardised")
    parts = layers.Dense(8), LIF(), standardised, LIF(), layers.Dense(3)
    model = spiking(keras.Sequential([keras.Input((6,)), *parts]), T)
    x, y = helpers.data(8)
    found = analysis.independence(model, 2 * x, y, loss=LOSS)
    assert found.kernels[0] == "standardised"
    assert 0 < found.a2_cosine[0] <= 1 + 1e-6
    assert np.isnan(found.a2_correlation).tolist() == [True, False]


def cosines(precision):
    """Those of both analyses of gradients in a precision, of the same network."""
    x, y = helpers.data(16)
    keras.config.set_dtype_policy(precision)
    parts = layers.Dense(8), LIF(), layers.Dense(8), LIF(), layers.Dense(3)
    model = spiking(keras.Sequential([keras.Input((6,)), *parts]), T)
    random = np.random.default_rng(0)
    for weight in model.weights:
        scale = 0.4 if len(weight.shape) > 1 else 0.0
        weight.assign(random.normal(0, scale, weight.shape))
    agreement = analysis.gradient_agreement(model, 2 * x, y, loss=LOSS)
    independence = analysis.independence(model, 2 * x, y, loss=LOSS)
    return [*agreement.cosine, *independence.a1_cosine, *independence.a2_cosine]


def test_half_and_double_precision_are_close_to_single_precision():
    single, half = cosines("float32"), cosines("mixed_bfloat16")
    assert_allclose(half, single, atol=0.1)
    with double_precision():
        assert_allclose(cosines("float64"), single, atol=1e-3)


def test_a_random_method_draws_what_the_next_training_step_would():
    x, y = helpers.data(8)
    method = rsnn.gradients.SLTT(random_steps=1)
    model = compiled(spiking(mlp(), T, method))
    first = analysis.gradient_agreement(model, x, y)
    again = analysis.gradient_agreement(model, x, y)
    assert_array_equal(first.norms, again.norms)


# Activity.
def test_rates_rasters_and_membranes_are_those_of_neurons_by_hand():
    x, _ = helpers.data()
    hidden = layers.Dense(8)
    neurons = LIF(decay=0.5, threshold=0.7, name="neurons")
    net = keras.Sequential([keras.Input((6,)), hidden, neurons, layers.Dense(3)])
    model = spiking(net, 5)
    currents = np.repeat(to_numpy(hidden(x))[None], 5, axis=0)
    spikes, membranes, _ = naive_lif(currents, decay=0.5, threshold=0.7)
    rates = analysis.firing_rates(model, x)
    assert_allclose(rates.by_step, spikes.mean(axis=(1, 2))[None], rtol=1e-6)
    assert_allclose(rates.by_neuron[0], spikes.mean(axis=(0, 1)), rtol=1e-6)
    assert_allclose(rates.mean, spikes.mean(), rtol=1e-6)
    found = analysis.raster(model, x, "neurons")
    assert_array_equal(found.spikes, np.moveaxis(spikes, 0, 1))
    found = analysis.membranes(model, x, "neurons", neurons=[1, 7])
    assert_allclose(
        found.values, np.moveaxis(membranes, 0, 1)[..., [1, 7]], rtol=1e-4, atol=1e-5
    )
    assert_array_equal(found.spikes, np.moveaxis(spikes, 0, 1)[..., [1, 7]])


def test_rates_of_currents_that_are_nan_and_of_what_follows_are_nan():
    x, _ = helpers.data()
    hidden = [layers.Dense(8), LIF(), layers.Dense(4), LIF(), layers.Dense(3)]
    model = spiking(keras.Sequential([keras.Input((6,)), *hidden]), T)
    x[1, 2] = np.nan
    is_nan = np.isnan(model.predict(x, verbose=0)).any(axis=1)
    assert np.flatnonzero(is_nan).tolist() == [1]
    rates = analysis.firing_rates(model, x)
    assert np.isnan(rates.mean).all()
    assert np.isnan(rates.by_step).all()
    message = r"`x` must have outputs that are numbers.*`x` has values that are NaN"
    with pytest.raises(ValueError, match=message):
        analysis.energy(model, x)


def test_a_raster_is_ordered_from_slow_to_fast_neurons():
    x = np.array([[1.0, 0.0, 0.5, 0.3], [0.5, 0.0, 0.5, 0.6]], "float32")
    inputs = keras.Input((4,))
    model = spiking(keras.Model(inputs, IF(name="neurons")(inputs)), 4)
    found = analysis.raster(model, x, "neurons", order="rate")
    assert found.neurons.tolist() == [1, 3, 2, 0]
    assert found.spikes.sum(axis=1).tolist() == [[0, 1, 2, 4], [0, 2, 2, 2]]
    chosen = [3, 0, 1]
    ordered = analysis.raster(model, x, "neurons", chosen, "rate")
    assert ordered.neurons.tolist() == [1, 3, 0]
    assert analysis.raster(model, x, "neurons", chosen).neurons.tolist() == chosen


@pytest.mark.parametrize(
    "neurons",
    [
        LIF(threshold=np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])),
        LIF(0.5, 0.7, threshold_stabilizer=True),
        rsnn.layers.ILIF(levels=3),
        rsnn.layers.Recurrent(LIF(threshold=0.3), layers.Dense(6)),
        rsnn.layers.PSN(T, 0.4),
    ],
    ids=["array", "stabilizer", "integer", "recurrent", "parallel"],
)
def test_membranes_are_drawn_beside_the_thresholds_at_which_they_spike(neurons):
    inputs = keras.Input((6,))
    network = keras.Model(inputs, layers.Dense(3)(neurons(inputs)))
    model, x = spiking(network, T, "bptt"), 2 * helpers.data(8, (T, 6))[0]
    found = analysis.membranes(model, x, neurons.name, [4, 0, 2])
    assert_array_equal(found.spikes > 0, found.values >= found.thresholds)
    assert 0 < (found.spikes > 0).mean() < 1
    lines = found.plot().axes[0].collections[-1].get_segments()
    assert [line[0, 1] for line in lines] == found.thresholds.tolist()[::-1]


def test_neurons_that_adapt_show_their_membranes_also_in_half_precision():
    neurons = rsnn.layers.ALIF(name="neurons", dtype="mixed_bfloat16")
    inputs = keras.Input((6,))
    network = keras.Model(inputs, layers.Dense(3)(neurons(inputs)))
    model, (x, _) = spiking(network, T, "bptt"), helpers.data()
    found = analysis.membranes(model, x, "neurons", 5)
    assert found.values.dtype == "float32"
    expected = analysis.raster(model, x, "neurons", 5).spikes
    assert_array_equal(found.spikes, expected)


def tick_labels(axes):
    return [text.get_text() for text in axes.get_yticklabels()]


@pytest.mark.runs_once
def test_an_ordered_raster_has_ticks_that_rise():
    spikes = np.ones((1, 2, 12))
    slow_first = analysis.Raster("neurons", np.arange(12) * 5 % 12, spikes)
    by_index = analysis.Raster("neurons", 5 * np.arange(12), spikes)
    ranks, indices = (
        ["1", "3", "5", "7", "9", "12"],
        ["0", "10", "20", "30", "40", "55"],
    )
    assert tick_labels(slow_first.plot().axes[0]) == ranks
    assert tick_labels(by_index.plot().axes[0]) == indices


@pytest.mark.runs_once
def test_the_legend_of_shuffled_spikes_is_beside_the_bars():
    figure = analysis.ShuffledAccuracy(1.0, 1.0, {"lif": 1.0}, 10).plot()
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_window_extent())


@pytest.mark.runs_once
def test_an_animation_has_a_frame_for_each_step_with_its_spikes_and_the_rates_so_far(
    tmp_path,
):
    pil = pytest.importorskip("PIL.Image")
    spikes = np.array([[[1, 0, 0], [1, 2, 0], [1, 0, 0]]], "float32")
    neurons = np.array([4, 2, 7])
    animation = analysis.Raster("neurons", neurons, spikes).animate(interval=250)
    animation.save(tmp_path / "raster.gif", writer="pillow")
    with pil.open(tmp_path / "raster.gif") as gif:
        assert (gif.format, gif.n_frames, gif.info["duration"]) == ("GIF", 3, 250)
    raster, rates = animation._fig.axes
    (marks,) = raster.collections
    animation._func(1)
    shown = [bar.get_width() for bar in rates.patches]
    assert shown == spikes[0, :2].mean(axis=0).tolist()
    assert marks.get_offsets().tolist() == [[1, 0], [2, 0], [2, 1], [3, 0]]
    # What was, the step itself, and what is to come.
    assert marks.get_alpha().tolist() == [0.5, 1.0, 1.0, 0.0]
    assert tick_labels(raster) == ["4", "2", "7"]
    silent = analysis.Raster("neurons", neurons, np.zeros((1, 2, 3)))
    silent.animate().save(tmp_path / "silent.gif", writer="pillow")


def test_a_network_with_a_time_mean_shows_its_membranes_and_has_no_accuracy_over_time():
    inputs = keras.Input((6,))
    x = rsnn.layers.TimeMean()(LIF(name="neurons")(inputs))
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), T)
    x, _ = helpers.data()
    found = analysis.membranes(model, x, "neurons")
    expected = analysis.raster(model, x, "neurons", 5).spikes
    assert_array_equal(found.spikes, expected)
    message = r"`model` must have an output at each step.*TimeMean"
    with pytest.raises(ValueError, match=message):
        analysis.accuracy_over_time(model, x, np.zeros(10))


def test_calls_of_a_shared_layer_are_told_apart():
    shared = LIF(name="shared")
    inputs = keras.Input((6,))
    network = keras.Model(inputs, shared(layers.Dense(6)(shared(inputs))))
    model, (x, _) = spiking(network, T), helpers.data()
    assert analysis.firing_rates(model, x).layers == ("shared", "shared (2)")
    first = analysis.raster(model, x, "shared").spikes
    assert not np.array_equal(first, analysis.raster(model, x, "shared (2)").spikes)


# Time.
def pulses(samples=64, timesteps=8, seed=0):
    """One pulse in the first or the second half, `(samples, T, 1)`: the same count,
    another time."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % 2
    x = np.zeros((samples, timesteps, 1), "float32")
    half = timesteps // 2
    x[np.arange(samples), random.integers(0, half, samples) + labels * half] = 1.0
    return x, labels


def test_shuffling_tells_a_code_of_times_from_a_code_of_rates():
    x, y = pulses()
    inputs = keras.Input((1,))
    # A neuron repeats the pulse; one with a perfect memory spikes from then on.
    spikes = IF(name="pulse", threshold=0.5)(inputs)
    kernel = keras.initializers.Constant([[8.0]])
    memory = IF(name="memory")(layers.Dense(1, kernel_initializer=kernel)(spikes))
    outputs = layers.Dense(
        2,
        kernel_initializer=keras.initializers.Constant([[1.0, 0.0]]),
        bias_initializer=keras.initializers.Constant([0.0, 0.5625]),
    )(memory)
    timed = rsnn.SpikingModel(keras.Model(inputs, outputs), timesteps=8)
    found = analysis.shuffle_in_time(timed, x, y)
    assert found.accuracy == 1.0
    assert 0.3 < found.shuffled < 0.7
    assert list(found.per_layer) == ["pulse", "memory"]
    assert found.per_layer["pulse"] == found.shuffled
    # The last layer is read by its counts alone.
    assert found.per_layer["memory"] == 1.0


def test_the_seed_determines_the_permutations():
    x, y = helpers.data(32, (T, 6))
    model = spiking(mlp(decay=0.9), T)

    def measured(seed):
        return analysis.shuffle_in_time(model, x, y, seed=seed, batch_size=16)

    first, again, shifted = measured(0), measured(0), measured(1)
    assert (first.shuffled, first.per_layer) == (again.shuffled, again.per_layer)
    assert first.accuracy == shifted.accuracy


def test_accuracy_over_time_is_that_of_a_model_with_fewer_steps():
    x, y = helpers.data(40)
    model = compiled(spiking(), metrics=["accuracy"])
    found = analysis.accuracy_over_time(model, x, y, timesteps=4, batch_size=7)
    assert found.trained_timesteps == 3
    assert found.samples == 40
    for t in range(1, 5):
        model.timesteps = t
        _, accuracy = model.evaluate(x, y, verbose=0)
        assert found.accuracy[t - 1] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.runs_once
def test_accuracies_are_drawn_with_their_standard_errors():
    over_time = analysis.AccuracyOverTime(np.array([0.5, 0.9]), 2, samples=100)
    shuffled = analysis.ShuffledAccuracy(0.9, 0.9, per_layer={"lif": 0.5}, samples=100)
    for found in (over_time, shuffled):
        (bars,) = found.plot().axes[0].collections
        ends = [segment[:, 1] for segment in bars.get_segments()]
        assert_allclose(ends, [[0.45, 0.55], [0.87, 0.93]])


# Errors.
def with_outputs(*names):
    """A model with these outputs, which is not compiled."""
    inputs = keras.Input((6,))
    spikes = LIF(name="lif")(layers.Dense(8)(inputs))
    outputs = {name: layers.Dense(3)(spikes) for name in names}
    return spiking(keras.Model(inputs, outputs if names[1:] else outputs["a"]))


X, Y = helpers.data(4)
LENGTHS = "`x` and `y` must have the same number of samples"
NO_LOSS = "`loss` must be given for a model that was not compiled with one"
METHODS, SHUFFLE = "gradient_agreement", "shuffle_in_time"
ACCURACY = "accuracy_over_time"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (METHODS, {}, NO_LOSS),
        (METHODS, {"other": "backprop", "loss": LOSS}, "`gradient` must be one of"),
        ("independence", {"y": Y[:3], "loss": LOSS}, LENGTHS),
        (SHUFFLE, {"y": Y[:3]}, LENGTHS),
        (ACCURACY, {"y": np.eye(4)[Y]}, r"shape \(4, 3\) for .*shape \(4, 4\)"),
        (SHUFFLE, {"model": ("a", "b")}, "`model` must have one output"),
        (ACCURACY, {"model": ("a", "b")}, "`model` must have one output"),
        ("raster", {"layer": "lif_1"}, "`layer` must be one of 'lif'"),
        ("membranes", {"neurons": [8]}, "`neurons` must be from 0 to 7"),
        ("raster", {"neurons": 0}, "`neurons` must be 1 or more"),
        ("raster", {"order": "time"}, "`order` must be one of None, 'rate'"),
        (SHUFFLE, {"seed": -1}, "`seed` must be 0 or more"),
        (ACCURACY, {"batch_size": 0}, "`batch_size` must be 1 or more"),
        (SHUFFLE, {"verbose": 3}, "`verbose` must be"),
    ],
)
def test_arguments_that_make_no_sense_are_named(name, arguments, message):
    given = {"model": ("a",), "x": X, "y": Y, **arguments}
    given["model"] = with_outputs(*given["model"])
    if name in ("raster", "membranes"):
        given.setdefault("layer", "lif")
    with pytest.raises(ValueError, match=message):
        analysed_by(name, **given)


def test_what_cannot_be_measured_or_drawn_is_named():
    model = with_outputs("a")
    one_output = keras.Sequential([model.network, layers.Dense(1)])
    with pytest.raises(ValueError, match=r"`y` must be labels from 0 to 1.*-1"):
        analysis.accuracy_over_time(spiking(one_output), X, 2 * (Y > 0) - 1)
    coupled = spiking(mlp(threshold_stabilizer=True), T, "bptt")
    with pytest.raises(ValueError, match="neurons must be independent"):
        analysis.independence(coupled, X, Y, loss=LOSS)
    with pytest.raises(TypeError, match="`costs` must be Costs"):
        analysis.energy(model, X, costs=4.6e-12)
    raster, membranes = analysis.raster(model, X, "lif"), analysis.membranes
    for found in (raster, membranes(model, X, "lif")):
        message = "`sample` must be from 0 to 3. Received: sample=4"
        with pytest.raises(IndexError, match=message):
            found.plot(sample=4)
    with pytest.raises(ValueError, match="`interval` must be"):
        raster.animate(interval=0)


@pytest.mark.parametrize("name", ANALYSES)
def test_other_models_empty_batches_and_labels_of_no_class_are_errors(name):
    arguments = ANALYSES[name]
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        analysed_by(name, mlp(), X, Y, **arguments)
    model = compiled(spiking())
    with pytest.raises(ValueError, match="at least one"):
        analysed_by(name, model, X[:0], Y[:0], **arguments)
    if name in ACTIVITY:
        return
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 2, the numbers"):
        analysed_by(name, model, X, np.array([0, 1, 3, 2]), **arguments)
    with pytest.raises(ValueError, match=r"array of numbers.*classes that have names"):
        analysed_by(name, model, X, Y.astype(str), **arguments)


@pytest.mark.parametrize("name", ["shuffle_in_time", "accuracy_over_time"])
def test_measurements_of_many_batches_show_their_progress(capsys, name):
    analyse = getattr(analysis, name)
    analyse(spiking(), X, Y, batch_size=2)
    assert "2/2" in capsys.readouterr().out
    analyse(spiking(), X, Y, batch_size=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_figure_without_matplotlib_names_the_extra(monkeypatch):
    found = analysis.raster(spiking(), X, "lif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (found.plot, found.animate):
        with pytest.raises(
            ImportError, match=r'extra `plots`: python -m pip install "m'
        ):
            draw()
