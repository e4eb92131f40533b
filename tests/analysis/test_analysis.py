"""Analysis: each measurement is that of a count by hand in NumPy, and leaves the model
as it was."""

import functools
import sys

import helpers
import keras
import numpy as np
import pytest
from helpers import (
    CROSSENTROPY,
    compiled,
    double_precision,
    mlp,
    naive_lif,
    rate_and_sltt,
    spiking,
    to_numpy,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    PSN,
    ParametricLIF,
    Recurrent,
    TimeMean,
    WSDense,
)

T = 4


def chain(*parts, **kwargs):
    """A model of layers on six features."""
    return spiking(helpers.chain(*parts), T, **kwargs)


def network():
    """What an analysis meets: shared statistics, masks, a skip connection, learned
    neurons, a nested model."""
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs))
    x = LIF(name="first")(x)
    y = layers.Dropout(0.3, seed=1)(layers.Conv2D(4, 3, padding="same")(x))
    y = ParametricLIF(name="second")(layers.BatchNormalization()(y))
    head = [keras.Input((6, 6, 4)), layers.Flatten(), layers.Dense(3)]
    return keras.Model(inputs, keras.Sequential(head)(layers.Add()([x, y])))


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
    values = to_numpy([variable.value for variable in variables])
    functions = model.train_function, model.predict_function
    settings = model.get_config(), model.gradient, model.step_mode, model.loss
    return values, (functions, settings, len(model.losses), len(model.metrics))


@pytest.mark.parametrize("name", ANALYSES)
def test_the_model_is_left_as_it_was_and_the_result_draws_a_figure(name, tmp_path):
    model, x, y = trained_model_and_data()
    values, facts = state_of(model)
    keras.utils.set_random_seed(1)
    noise = to_numpy(keras.random.uniform((3,)))
    keras.utils.set_random_seed(1)
    found = analysed_by(name, model, x, y, **ANALYSES[name])
    rsnn.describe(model, x, verbose=False)
    assert_array_equal(to_numpy(keras.random.uniform((3,))), noise)
    new_values, new_facts = state_of(model)
    keras.tree.map_structure(assert_array_equal, values, new_values)
    assert new_facts == facts
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


# Gradients.
def cosine(left, right):
    return np.sum(left * right) / np.linalg.norm(left) / np.linalg.norm(right)


def two_outputs(gradient, step_mode):
    """A model with losses of weights, layers and several outputs, which takes steps as
    long as its gradients, and data."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, kernel_regularizer="l2", name="first")(inputs)
    spikes = LIF(activity_regularizer="l1")(hidden)
    a, b = layers.Dense(3, name="a")(spikes), layers.Dense(1, name="b")(spikes)
    network = keras.Model(inputs, {"a": a, "b": b})
    model = spiking(network, T, gradient, step_mode=step_mode)
    losses, weights = {"a": CROSSENTROPY, "b": "mse"}, {"a": 2.0, "b": 0.5}
    model.compile(keras.optimizers.SGD(1.0), losses, loss_weights=weights)
    x, y = helpers.data(8)
    return model, x, {"a": y, "b": np.ones((8, 1), "float32")}


@rate_and_sltt
def test_agreement_is_that_of_the_gradients_of_training(gradient, step_mode):
    steps = []
    for method in (gradient, "bptt"):
        model, *batch = two_outputs(method, step_mode)
        before = model.get_weights()
        model.train_on_batch(*batch)
        pairs = zip(before, model.get_weights(), strict=True)
        steps.append([old - new for old, new in pairs if old.ndim == 2])
    model, *batch = two_outputs(gradient, step_mode)
    found = analysis.gradient_agreement(model, *batch)
    assert found.layers == ("first", "a", "b")
    for index, (step, by_bptt) in enumerate(zip(*steps, strict=True)):
        norm = np.linalg.norm(step)
        ratio = norm / np.linalg.norm(by_bptt)
        assert found.norms[index] == pytest.approx(norm, rel=1e-3)
        assert found.norm_ratio[index] == pytest.approx(ratio, rel=1e-3)
        assert found.cosine[index] == pytest.approx(cosine(step, by_bptt), abs=1e-4)


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
    assert analysis.gradient_agreement(model, x, y).other == "rate"


def judged(left, right, subscripts):
    """The cosine between a product over time and that of time means, and the
    correlation of the factors."""

    def product(*factors):
        return np.einsum(subscripts, *factors)

    means = left.mean(axis=0)[None], right.mean(axis=0)[None]
    left_rest, right_rest = left - means[0], right - means[1]
    left_norm = np.sum(product(left_rest**2, np.ones_like(right)))
    right_norm = np.sum(product(np.ones_like(left), right_rest**2))
    norm = np.sqrt(left_norm * right_norm)
    # An error that is the same at all steps has none.
    correlation = np.sum(product(left_rest, right_rest)) / norm if norm else 0.0
    return cosine(product(left, right), product(*means)), correlation


def neurons_by_hand(currents, cell=None):
    """Spikes, ∂s/∂v and κ of neurons with λ = 0.5, κ_t = h_t ρ_t with ρ_t = 1 + λ ρ_{t
    − 1}, and ∂v_t/∂I_τ = λ^(t − τ), since the reset carries no derivative."""
    spikes, membranes, _ = naive_lif(currents, decay=0.5)
    sigmoid = 1 / (1 + np.exp(-4 * (membranes - 1)))
    slopes = 4 * sigmoid * (1 - sigmoid)
    rho = np.cumsum(0.5 ** np.arange(T))
    along = np.tril(0.5 ** np.subtract.outer(np.arange(T), np.arange(T)))
    return spikes, slopes, slopes * rho.reshape(-1, 1, 1), along


def parallel_by_hand(currents, cell):
    """The same of parallel neurons, whose bias is their threshold."""
    weight, bias = (np.float64(variable) for variable in (cell.weight, cell.bias))
    membranes = np.einsum("ts,sbi->tbi", weight, currents) + bias[:, :, None]
    slopes = to_numpy(cell.surrogate_derivative(membranes))
    reached = slopes * weight.sum(axis=1)[:, None, None]
    return membranes >= 0.0, slopes, reached, weight


@pytest.mark.parametrize(
    "second_neurons", [lambda: LIF(0.5), lambda: PSN(T, threshold=0.1)]
)
def test_independence_is_that_of_a_program_by_hand(second_neurons):
    """A1 and A2 of two layers of neurons, from δ at their spikes, κ and weights."""
    keras.utils.set_random_seed(3)
    x, y = helpers.data(16)
    x = 2 * x
    with double_precision():
        neurons = second_neurons()
        parts = layers.Dense(8), LIF(0.5), layers.Dense(8), neurons, layers.Dense(3)
        model = chain(*parts)
        found = analysis.independence(model, x, y, loss=CROSSENTROPY)
        kernels = [part.kernel for part in parts[::2]]
        first, second, last = map(np.float64, to_numpy(kernels))
        a, _, a_kappa, _ = neurons_by_hand(np.repeat([x @ first], T, axis=0))
        by_hand = parallel_by_hand if isinstance(neurons, PSN) else neurons_by_hand
        b, b_slopes, b_kappa, through = by_hand(a @ second, neurons.cell)
    exponentials = np.exp((b @ last).mean(axis=0))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    error = (probabilities - np.eye(3)[y]) / len(y) / T
    output_error = np.repeat([error], T, axis=0)
    b_error = output_error @ last.T
    second_error = np.einsum("ts,tbi->sbi", through, b_error * b_slopes)
    a_error = second_error @ second.T
    a1 = (
        judged(a_error, a_kappa, "tbi,tbi->bi"),
        judged(b_error, b_kappa, "tbi,tbi->bi"),
    )
    a2 = judged(second_error, a, "tbi,tbj->ij"), judged(output_error, b, "tbi,tbj->ij")
    a1_found = np.transpose([found.a1_cosine, found.a1_correlation])
    a2_found = np.transpose([found.a2_cosine, found.a2_correlation])
    assert_allclose(a1_found, a1, atol=1e-6)
    assert_allclose(a2_found, a2, atol=1e-6)
    names = [part.name for part in parts]
    assert found.neurons == (names[1], names[3])
    assert found.kernels == (names[2], names[4])
    assert found.a1_cosine[0] < 0.9999


def test_independence_is_that_of_the_rows_that_are_not_masked():
    frames = np.random.default_rng(0).uniform(0.5, 2.0, (8, T, 3, 2)).astype("float32")
    frames[:, :, 2] = 0.0
    found = []
    for rows in (3, 2):
        keras.utils.set_random_seed(0)
        first = layers.Masking(), layers.Dense(4, bias_initializer="ones"), LIF()
        then = layers.GlobalAveragePooling1D(), layers.Dense(6), LIF(), layers.Dense(3)
        model = spiking(helpers.chain(*first, *then, shape=(rows, 2)), T)
        batch = frames[:, :, :rows], np.arange(8) % 3
        found.append(analysis.independence(model, *batch, loss=CROSSENTROPY).a1_cosine)
    assert found[1][0] < 0.9999
    assert_allclose(*found, rtol=1e-6)


def test_a_transformed_kernel_has_a_cosine_but_no_correlation():
    standardised = WSDense(8, name="standardised")
    model = chain(layers.Dense(8), LIF(), standardised, LIF(), layers.Dense(3))
    x, y = helpers.data(8)
    found = analysis.independence(model, 2 * x, y, loss=CROSSENTROPY)
    assert found.kernels[0] == "standardised"
    assert 0 < found.a2_cosine[0] <= 1 + 1e-6
    assert np.isnan(found.a2_correlation).tolist() == [True, False]


class OwnMethod(rsnn.gradients.SLTT):
    pass


def test_a_random_method_draws_what_the_next_training_step_would():
    method = OwnMethod(random_steps=1)
    model, batch = compiled(spiking(mlp(), T, method)), helpers.data(8)
    first, again = (analysis.gradient_agreement(model, *batch) for _ in range(2))
    assert first.method == repr(model.gradient)
    assert_array_equal(first.norms, again.norms)


def test_rates_rasters_and_membranes_are_those_of_neurons_by_hand():
    x, _ = helpers.data()
    hidden = layers.Dense(8)
    neurons = LIF(0.5, 0.7, name="neurons", activity_regularizer="l2")
    model = chain(hidden, neurons, layers.Dense(3))
    currents = np.repeat(to_numpy(hidden(x))[None], T, axis=0)
    spikes, membranes, _ = naive_lif(currents, decay=0.5, threshold=0.7)
    rates = analysis.firing_rates(model, x)
    assert_allclose(rates.by_step, spikes.mean(axis=(1, 2))[None], rtol=1e-6)
    assert_allclose(rates.by_neuron[0], spikes.mean(axis=(0, 1)), rtol=1e-6)
    assert_allclose(rates.mean, spikes.mean(), rtol=1e-6)
    spikes, membranes = np.moveaxis(spikes, 0, 1), np.moveaxis(membranes, 0, 1)
    assert_array_equal(analysis.raster(model, x, "neurons").spikes, spikes)
    found = analysis.membranes(model, x, "neurons", neurons=[1, 7])
    assert_allclose(found.values, membranes[..., [1, 7]], rtol=1e-4, atol=1e-5)
    assert_array_equal(found.spikes, spikes[..., [1, 7]])
    assert not model.network.losses, "membranes count as no activity"


def test_rates_of_currents_that_are_nan_and_of_what_follows_are_nan():
    x, _ = helpers.data()
    x[1, 2] = np.nan
    model = chain(layers.Dense(8), LIF(), layers.Dense(4), LIF(), layers.Dense(3))
    rates = analysis.firing_rates(model, x)
    assert np.isnan(rates.mean).all()
    assert np.isnan(rates.by_step).all()
    message = r"`x` must have outputs that are numbers.*`x` has values that are NaN"
    with pytest.raises(ValueError, match=message):
        analysis.energy(model, x)


def test_a_raster_is_ordered_from_slow_to_fast_neurons():
    x = np.array([[1.0, 0.0, 0.5, 0.3], [0.5, 0.0, 0.5, 0.6]], "float32")
    model = spiking(helpers.chain(IF(name="neurons"), shape=(4,)), 4)
    found = analysis.raster(model, x, "neurons", order="rate")
    assert found.neurons.tolist() == [1, 3, 2, 0]
    assert found.spikes.sum(axis=1).tolist() == [[0, 1, 2, 4], [0, 2, 2, 2]]
    found = analysis.raster(model, x, "neurons", [3, 0, 1])
    assert found.neurons.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    "neurons",
    [
        [LIF(0.5, 0.7, threshold_stabilizer=True)],
        [ILIF(levels=3)],
        [Recurrent(LIF(threshold=0.3), layers.Dense(6))],
        [PSN(T, 0.4)],
        [LIF(threshold=np.array([0.2, 0.4, 0.6, 0.8, 1.0, 1.2])), TimeMean()],
    ],
    ids=lambda neurons: neurons[-1].__class__.__name__,
)
def test_membranes_are_drawn_beside_the_thresholds_at_which_they_spike(neurons):
    model = chain(*neurons, layers.Dense(3), gradient="bptt")
    x, name = 2 * helpers.data(8, (T, 6))[0], neurons[0].name
    found = analysis.membranes(model, x, name, [4, 0, 2])
    raster = analysis.raster(model, x, name, [4, 0, 2])
    assert_array_equal(found.spikes, raster.spikes)
    assert 0 < (found.spikes > 0).mean() < 1
    assert_array_equal(found.spikes > 0, found.values >= found.thresholds)
    lines = found.plot().axes[0].collections[-1].get_segments()
    assert [line[0, 1] for line in lines] == found.thresholds.tolist()[::-1]


@pytest.mark.backends(1)
def test_an_animation_has_a_frame_for_each_step_with_its_spikes_and_the_rates_so_far(
    tmp_path,
):
    pil = pytest.importorskip("PIL.Image")
    spikes = np.array([[[1, 0, 0], [1, 2, 0], [1, 0, 0]]], "float32")
    raster = analysis.Raster("neurons", np.array([4, 2, 7]), spikes)
    animation = raster.animate(interval=250)
    animation.save(tmp_path / "raster.gif", writer="pillow")
    with pil.open(tmp_path / "raster.gif") as gif:
        assert (gif.n_frames, gif.info["duration"]) == (3, 250)


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
    # A neuron repeats the pulse; one with a perfect memory spikes from then on.
    pulse, memory = IF(0.5, name="pulse"), IF(name="memory")
    between, last = layers.Dense(1), layers.Dense(2)
    timed = spiking(helpers.chain(pulse, between, memory, last, shape=(1,)), 8)
    between.kernel.assign([[8.0]])
    last.kernel.assign([[1.0, 0.0]])
    last.bias.assign([0.0, 0.5625])
    found = analysis.shuffle_in_time(timed, x, y)
    assert found.accuracy == 1.0
    assert 0.3 < found.shuffled < 0.7
    # The last layer is read by its counts alone.
    assert found.per_layer == {"pulse": found.shuffled, "memory": 1.0}


def test_accuracy_over_time_is_that_of_a_model_with_fewer_steps():
    x, y = helpers.data(40)
    model = compiled(spiking(), metrics=["accuracy"])
    found = analysis.accuracy_over_time(model, x, y, timesteps=4, batch_size=7)
    assert (found.trained_timesteps, found.samples) == (3, 40)
    for t in range(1, 5):
        model.timesteps = t
        _, accuracy = model.evaluate(x, y, verbose=0)
        assert found.accuracy[t - 1] == pytest.approx(accuracy, abs=1e-6)


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


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gradient_agreement", {}, NO_LOSS),
        ("independence", {"y": Y[:3], "loss": CROSSENTROPY}, LENGTHS),
        (
            "accuracy_over_time",
            {"y": np.eye(4)[Y]},
            r"shape \(4, 3\) for .*shape \(4, 4\)",
        ),
        ("shuffle_in_time", {"model": ("a", "b")}, "`model` must have one output"),
        (
            "membranes",
            {"layer": "lif", "neurons": [8]},
            "`neurons` must be from 0 to 7",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_named(name, arguments, message):
    given = {"model": ("a",), "x": X, "y": Y, **arguments}
    given["model"] = with_outputs(*given["model"])
    with pytest.raises(ValueError, match=message):
        analysed_by(name, **given)


def test_what_cannot_be_measured_or_drawn_is_named(monkeypatch):
    one_output = chain(LIF(), layers.Dense(1))
    with pytest.raises(ValueError, match=r"`y` must be labels from 0 to 1.*-1"):
        analysis.accuracy_over_time(one_output, X, 2 * (Y > 0) - 1)
    means = chain(LIF(), TimeMean())
    with pytest.raises(ValueError, match=r"an output at each step.*TimeMean"):
        analysis.accuracy_over_time(means, X, Y)
    coupled = spiking(mlp(threshold_stabilizer=True), T, "bptt")
    with pytest.raises(ValueError, match="neurons must be independent"):
        analysis.independence(coupled, X, Y, loss=CROSSENTROPY)
    raster = analysis.raster(with_outputs("a"), X, "lif")
    message = "`sample` must be from -4 to 3. Received: sample=4"
    with pytest.raises(IndexError, match=message):
        raster.plot(sample=4)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = r'extra `plots`: python -m pip install "m'
    for draw in (raster.plot, raster.animate):
        with pytest.raises(ImportError, match=message):
            draw()


@pytest.mark.parametrize("name", ["energy", "independence", "accuracy_over_time"])
def test_other_models_empty_batches_and_labels_of_no_class_are_errors(name):
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        analysed_by(name, mlp(), X, Y)
    model = compiled(spiking())
    with pytest.raises(ValueError, match="at least one"):
        analysed_by(name, model, X[:0], Y[:0])
    if name in ACTIVITY:
        return
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 2, the numbers"):
        analysed_by(name, model, X, np.array([0, 1, 3, 2]))
    with pytest.raises(ValueError, match=r"array of numbers.*classes that have names"):
        analysed_by(name, model, X, Y.astype(str))
