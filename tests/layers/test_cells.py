"""Neurons step by step: cells, the layers around them and whole networks against loops
over single numbers in float64."""

import helpers
import keras
import numpy as np
import pytest
from helpers import assert_close, dyadic, naive_lif, to_numpy
from keras import ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, LIFCell, Neuron

STEPS = 6
NEURONS = [
    {"decay": 0.2, "threshold": 1.0, "reset": "soft"},
    {"decay": 0.0, "threshold": 1.0, "reset": "soft"},
    {"decay": 0.95, "threshold": 0.3, "reset": "soft"},
    {"decay": 0.5, "threshold": 2.5, "reset": "soft"},
    {"decay": 0.2, "threshold": 1.0, "reset": "hard"},
    {"decay": 0.0, "threshold": 0.7, "reset": "hard", "v_reset": -1.0},
    {"decay": 0.9, "threshold": 0.6, "reset": "hard", "v_reset": -0.25},
    {"decay": 0.5, "threshold": 1.5, "reset": "hard", "v_reset": 0.5},
    {"decay": 0.5, "threshold": 1.0, "reset": "soft", "reset_delay": True},
    {
        "decay": 0.5,
        "threshold": 0.5,
        "reset": "hard",
        "v_reset": -0.25,
        "decay_input": True,
        "reset_delay": True,
    },
    {
        "decay": 0.2,
        "threshold": 0.6,
        "reset": "hard",
        "v_reset": 0.5,
        "decay_input": True,
    },
]
EXACT_NEURONS = [
    neuron
    for neuron in NEURONS
    if neuron["decay"] in (0.0, 0.5) and neuron["threshold"] != 0.7
]
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16", "float64"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Explicitly requested dtype float64"
)  # JAX without 64 bits
every_neuron = pytest.mark.parametrize("neuron", NEURONS, ids=str)
every_exact_neuron = pytest.mark.parametrize("neuron", EXACT_NEURONS, ids=str)
every_policy = pytest.mark.parametrize("policy", POLICIES)


def run(cell, currents, dtype="float32"):
    """Spikes and states of a cell called step by step with the state carried by
    hand."""
    spikes, states, state = [], [], None
    for current in currents:
        spike, state = cell(ops.convert_to_tensor(current, dtype), state)
        spikes.append(to_numpy(spike))
        states.append(to_numpy(state["membrane"] if cell.reset_delay else state))
    return np.stack(spikes).astype("float64"), np.stack(states).astype("float64")


def currents_of(neuron, seed=0):
    """Inputs that make some neurons spike and some not, at every step."""
    generator = np.random.default_rng(seed)
    return generator.normal(
        0.6 * neuron["threshold"], neuron["threshold"], (STEPS, 3, 5)
    ).astype("float32")


@every_neuron
def test_a_cell_with_a_carried_state_is_the_naive_loop(neuron):
    currents = currents_of(neuron)
    spikes, states = run(LIFCell(**neuron), currents)
    wanted, _, wanted_states = naive_lif(currents, **neuron)
    assert 0.1 < wanted.mean() < 0.9
    np.testing.assert_array_equal(spikes, wanted)
    np.testing.assert_allclose(states, wanted_states, rtol=1e-5, atol=1e-6)


@every_policy
@every_exact_neuron
def test_a_cell_is_the_naive_loop_in_every_precision(neuron, policy):
    currents = dyadic((STEPS, 3, 5), high=4.0)
    spikes, states = run(LIFCell(dtype=policy, **neuron), currents)
    wanted, _, wanted_states = naive_lif(currents, **neuron)
    np.testing.assert_array_equal(spikes, wanted)
    np.testing.assert_array_equal(states, wanted_states)


@every_policy
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_a_membrane_exactly_at_the_threshold_spikes(policy, reset):
    cell = LIFCell(decay=0.5, threshold=0.75, reset=reset, dtype=policy)
    below = 0.75 - 2.0**-8
    # At once, just not, and by adding up: 0.5 · 0.5 + 0.5 = 0.75.
    spikes, _ = run(cell, [[[0.75, below, 0.5]], [[0.0, 0.0, 0.5]]])
    assert spikes.tolist() == [[[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]]


@every_policy
def test_spikes_have_the_compute_dtype_and_are_0_or_1(policy):
    cell = LIFCell(decay=0.9, threshold=0.1, dtype=policy)
    spikes, _ = cell(
        ops.convert_to_tensor(np.random.default_rng(0).normal(size=(20, 30)), "float32")
    )
    assert keras.backend.standardize_dtype(spikes.dtype) in (
        cell.compute_dtype,
        *_jax_without_64_bits(),
    )
    assert set(np.unique(to_numpy(spikes))) == {0.0, 1.0}


def _jax_without_64_bits():
    return ("float32",) if helpers.BACKEND == "jax" else ()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_the_state_is_float32_in_half_precision_and_stays_so(policy):
    cell = LIFCell(decay=0.2, threshold=1.0, dtype=policy)
    _, states = run(cell, np.full((STEPS, 1, 1), 0.5))
    _, state = cell(ops.full((1, 1), 0.5))
    for _ in range(2):
        assert keras.backend.standardize_dtype(state.dtype) == "float32"
        _, state = cell(ops.full((1, 1), 0.5), state)
    # 0.5 · (1 + 0.2 + 0.2² + ...) is not representable in half precision.
    np.testing.assert_allclose(
        states, naive_lif(np.full((STEPS, 1, 1), 0.5))[2], rtol=1e-6
    )


def test_without_a_state_the_cell_is_at_rest():
    cell = LIFCell(decay=0.5)
    inputs = ops.convert_to_tensor(currents_of({"threshold": 1.0})[0])
    at_rest = cell(inputs, cell.initial_state(inputs))
    assert_close(cell(inputs), at_rest, rtol=0)
    np.testing.assert_array_equal(
        to_numpy(cell.initial_state(inputs)), np.zeros((3, 5))
    )


def test_a_cell_keeps_no_state_of_its_own():
    cell = LIFCell(decay=0.9)
    inputs = ops.full((2, 2), 0.6)
    first = to_numpy(cell(inputs))
    cell(inputs, cell(inputs)[1])
    np.testing.assert_array_equal(first, to_numpy(cell(inputs)))
    assert cell.variables == []


@every_neuron
def test_a_layer_outside_a_model_advances_one_step_from_rest(neuron):
    currents = currents_of(neuron)[:1]
    lif = LIF(**neuron)
    for _ in range(2):
        np.testing.assert_array_equal(
            to_numpy(lif(ops.convert_to_tensor(currents[0]))),
            naive_lif(currents, **neuron)[0][0],
        )


def test_a_network_outside_a_model_advances_one_step():
    network = helpers.mlp()
    x, _ = helpers.data()
    once = rsnn.SpikingModel(network, timesteps=1)
    np.testing.assert_allclose(
        network.predict(x, verbose=0), once.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5)])
def test_a_layer_takes_any_rank(shape):
    currents = dyadic(shape)
    np.testing.assert_array_equal(
        to_numpy(LIF()(ops.convert_to_tensor(currents, "float32"))), currents >= 1.0
    )
    assert LIF().compute_output_shape((None, *shape[1:])) == (None, *shape[1:])


# The gradient of a step.
SURROGATES = list(rsnn.surrogates.BY_NAME)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("make", [LIF, LIFCell])
def test_the_gradient_of_one_step_is_the_surrogates_derivative(make, surrogate):
    neuron = make(threshold=0.7, surrogate=surrogate)
    inputs = currents_of({"threshold": 0.7})[0]
    weights = np.linspace(-1, 1, inputs.size).reshape(inputs.shape).astype("float32")

    def weighted_spikes(current):
        outputs = neuron(current)
        spikes = outputs[0] if make is LIFCell else outputs
        return ops.sum(spikes * ops.convert_to_tensor(weights))

    (gradient,) = helpers.gradient_of(weighted_spikes, [inputs])
    wanted = (
        to_numpy(neuron.surrogate.derivative(ops.convert_to_tensor(inputs) - 0.7))
        * weights
    )
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-7)


def two_step_gradients(
    first,
    second,
    decay,
    threshold,
    reset,
    v_reset,
    detach_reset,
    decay_input,
    reset_delay,
):
    """∂/∂I_1 and ∂/∂I_2 of a·s_1 + b·s_2 + c·v⁺_2 for every neuron by the chain rule,
    in float64; (a, b, c) = (1, 2, 3)."""
    scale = 1 - decay if decay_input else 1.0

    def step(membrane):
        spike = (membrane >= threshold).astype("float64")
        sigmoid = 1 / (1 + np.exp(-4 * (membrane - threshold)))
        slope = 4 * sigmoid * (1 - sigmoid)
        through_spike = 0.0 if detach_reset else slope
        if reset == "soft":
            return (
                spike,
                slope,
                membrane - threshold * spike,
                1 - threshold * through_spike,
            )
        after = membrane * (1 - spike) + v_reset * spike
        return spike, slope, after, (1 - spike) + (v_reset - membrane) * through_spike

    spike, slope_1, state_1, reset_1 = step(scale * first.astype("float64"))
    if reset_delay:
        integrated = decay * scale * first + scale * second
        through_spike = 0.0 if detach_reset else slope_1
        if reset == "soft":
            membrane, kept, by_spike = (
                integrated - threshold * spike,
                np.ones_like(spike),
                -threshold,
            )
        else:
            membrane, kept, by_spike = (
                np.where(spike == 1, v_reset, integrated),
                1 - spike,
                v_reset - integrated,
            )
        at_second = 2 * step(membrane)[1] + 3
        return scale * (
            slope_1 + at_second * (kept * decay + by_spike * through_spike)
        ), scale * at_second * kept
    _, slope_2, _, reset_2 = step(decay * state_1 + scale * second)
    at_second = 2 * slope_2 + 3 * reset_2
    return scale * (slope_1 + at_second * decay * reset_1), scale * at_second


@pytest.mark.parametrize("detach_reset", [True, False])
@every_neuron
def test_gradients_of_two_steps_follow_the_chain_rule(neuron, detach_reset):
    cell = LIFCell(detach_reset=detach_reset, **neuron)
    first, second = currents_of(neuron)[:2]

    def total(first, second):
        spikes_1, state = cell(first)
        spikes_2, state = cell(second, state)
        return ops.sum(
            spikes_1
            + 2 * spikes_2
            + 3 * (state["membrane"] if cell.reset_delay else state)
        )

    gradients = helpers.gradient_of(total, [first, second])
    defaults = {"v_reset": 0.0, "decay_input": False, "reset_delay": False}
    wanted = two_step_gradients(
        first, second, **{**defaults, **neuron}, detach_reset=detach_reset
    )
    assert_close(gradients, wanted, rtol=1e-4, atol=1e-5)


# Configs.
CONFIG = {
    "decay": 0.3,
    "threshold": 0.8,
    "reset": "hard",
    "v_reset": -0.5,
    "detach_reset": False,
    "decay_input": True,
    "reset_delay": True,
}


@pytest.mark.parametrize("make", [LIF, LIFCell])
def test_a_config_makes_the_same_neuron(make):
    neuron = make(
        surrogate=rsnn.surrogates.ATan(alpha=3.0),
        name="mine",
        dtype="mixed_bfloat16",
        trainable=False,
        **CONFIG,
    )
    again = make.from_config(neuron.get_config())
    assert {name: getattr(again, name) for name in CONFIG} == CONFIG
    assert repr(again.surrogate) == "ATan(alpha=3.0)"
    assert (again.name, again.compute_dtype, again.trainable) == (
        "mine",
        "bfloat16",
        False,
    )
    assert again.get_config() == neuron.get_config()


def test_numpy_numbers_are_accepted_and_saved_as_python_numbers():
    lif = LIF(
        decay=np.float32(0.5),
        threshold=np.int64(2),
        reset="hard",
        v_reset=np.float64(-1),
    )
    assert [type(getattr(lif, name)) for name in ("decay", "threshold", "v_reset")] == [
        float,
        float,
        float,
    ]


def test_a_neuron_with_a_cell_is_recreated_from_its_config():
    neuron = Neuron(LIFCell(**CONFIG), name="mine")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(neuron)
    )
    assert type(again) is Neuron
    assert type(again.cell) is LIFCell
    assert {name: getattr(again.cell, name) for name in CONFIG} == CONFIG
    assert again.get_config() == neuron.get_config()


def test_a_neuron_around_a_cell_is_the_layer():
    currents = currents_of(NEURONS[0])[0]
    inputs = ops.convert_to_tensor(currents)
    np.testing.assert_array_equal(
        to_numpy(Neuron(LIFCell())(inputs)), to_numpy(LIF()(inputs))
    )


@keras.saving.register_keras_serializable(package="tests")
class TwiceCell(rsnn.layers.NeuronCell):
    """A custom cell with a trainable weight: v_t = v_{t−1} + w · I_t − θ s_{t−1}."""

    def build(self, input_shape):
        self.gain = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(2.0),
            name="gain",
        )
        self.built = True

    def step(self, inputs, state):
        membrane = state + self.gain * inputs
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - self.threshold * spikes


def own_cell_network():
    inputs = keras.Input((3,))
    return keras.Model(inputs, Neuron(TwiceCell(threshold=2.0))(inputs))


def test_a_custom_cell_runs_over_time():
    x = dyadic((4, 3), low=0.0, high=1.0).astype("float32")
    rates = helpers.spiking(own_cell_network(), timesteps=5, gradient="bptt").predict(
        x, verbose=0
    )
    # Integrate and fire: the membrane gains 2x a step and loses 2 a spike.
    np.testing.assert_allclose(rates, np.floor(5 * x) / 5, atol=1e-6)


# A whole network.
def naive_network(model, frames, neuron):
    """Dense, LIF, Dense, LIF, Dense, computed by loops over time, `(T, batch, ...)`."""
    dense = [
        layer for layer in model.network.layers if isinstance(layer, keras.layers.Dense)
    ]
    signal = frames.astype("float64")
    for index, layer in enumerate(dense):
        kernel, bias = (array.astype("float64") for array in layer.get_weights())
        signal = np.stack([frame @ kernel + bias for frame in signal])
        if index < len(dense) - 1:
            signal, _, _ = naive_lif(signal, **neuron)
    return signal


def deep_network(neuron):
    inputs = keras.Input((6,))
    x = inputs
    for width in (12, 10):
        x = LIF(**neuron)(
            keras.layers.Dense(
                width, kernel_initializer="he_normal", bias_initializer="glorot_normal"
            )(x)
        )
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.fixture(params=["static", "temporal"])
def frames(request):
    """`(input of the model, its frames (T, batch, ...))`."""
    generator = np.random.default_rng(1)
    if request.param == "static":
        x = generator.normal(1.0, 1.5, (7, 6)).astype("float32")
        return x, np.repeat(x[None], STEPS, axis=0)
    x = generator.normal(1.0, 1.5, (7, STEPS, 6)).astype("float32")
    return x, np.swapaxes(x, 0, 1)


@pytest.mark.parametrize(
    ("neuron", "gradient"),
    [
        (NEURONS[0], "rate"),
        (NEURONS[2], "bptt"),
        (NEURONS[6], "rate"),
        (NEURONS[9], "bptt"),
    ],
    ids=str,
)
def test_a_model_predicts_the_naive_loop_over_time(neuron, gradient, frames):
    x, by_step = frames
    model = helpers.spiking(deep_network(neuron), STEPS, gradient)
    wanted = naive_network(model, by_step, neuron)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), wanted.mean(axis=0), rtol=1e-4, atol=1e-5
    )
    model.return_sequences = True
    np.testing.assert_allclose(
        model.predict(x, verbose=0), np.swapaxes(wanted, 0, 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_the_loss_of_training_is_that_of_the_naive_loop(gradient, frames):
    x, by_step = frames
    neuron = NEURONS[0]
    model = helpers.spiking(deep_network(neuron), STEPS, gradient)
    wanted = naive_network(model, by_step, neuron).mean(axis=0)
    loss, _ = helpers.loss_and_gradients(
        model, x, wanted * 0, loss=lambda y, outputs: ops.sum(outputs * outputs)
    )
    assert loss == pytest.approx(np.sum(wanted**2), rel=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_network_in_half_precision_spikes_like_one_in_single(policy):
    def rates(policy):
        inputs = keras.Input((5,))
        model = helpers.spiking(
            keras.Model(inputs, LIF(decay=0.5, dtype=policy)(inputs)), timesteps=4
        )
        return model.predict(dyadic((6, 5)).astype("float32"), verbose=0)

    np.testing.assert_array_equal(rates(policy).astype("float32"), rates("float32"))
