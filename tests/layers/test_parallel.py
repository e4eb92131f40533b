"""Parallel spiking neurons: reference cases, masks, custom cells, and what they cannot
do."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_same,
    both_step_modes,
    chain,
    gradient_of,
    loss_and_gradients,
    registered,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from next_cases import NextCase

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import (
    PSN,
    MaskedPSN,
    Neuron,
    NeuronCell,
    PSNCell,
    SlidingPSN,
    SlidingPSNCell,
)

T = 5
Y = np.array([0, 1, 2, 1])


def psn():
    return PSN(T)


def masked():
    return MaskedPSN(T, 3)


def half_masked():
    layer = MaskedPSN(T, 3)
    layer.mask = 0.5
    assert layer.mask == 0.5
    return layer


def sliding():
    return SlidingPSN(3)


def neurons_of(network):
    return [layer for layer in network.layers if hasattr(layer, "cell")]


def network(make, depth=2):
    keras.utils.set_random_seed(0)
    parts = []
    for _ in range(depth):
        parts += [layers.Dense(8), make()]
    network = chain(*parts, layers.Dense(3))
    for layer in neurons_of(network):
        # Spikes at some steps, whatever the random weights.
        layer.cell.bias.assign(np.full(layer.cell.bias.shape, -0.1))
    return network


def frames():
    return np.random.default_rng(0).normal(0.3, 1.0, (4, T, 6)).astype("float32")


def results(make, gradient, step_mode="multi", x=None, depth=2, **arguments):
    arguments["step_mode"] = step_mode
    model = spiking(network(make, depth), T, gradient, **arguments)
    x = frames() if x is None else x
    value, gradients = loss_and_gradients(model, x, Y)
    return [value, *gradients.values()]


CASES = {
    "psn_mlp": lambda timesteps, **settings: PSN(timesteps),
    "masked_psn_mlp": lambda timesteps, order, mask, **settings: MaskedPSN(
        timesteps, order, mask=mask
    ),
    "sliding_psn_mlp": lambda order, **settings: SlidingPSN(order),
}


@pytest.mark.parametrize("name", CASES)
def test_the_authors_program_agrees(name):
    case = NextCase(name)
    model = case.dense_model(
        lambda x, synapse, at: CASES[name](**case.settings)(synapse(x))
    )
    for layer, theirs in zip(neurons_of(model.network), ("n1", "n2"), strict=True):
        case.load(layer.cell.weight, f"{theirs}.weight")
        case.load(layer.cell.bias, f"{theirs}.bias")
    case.assert_agrees(model)


@registered
class ByChannelCell(NeuronCell):
    """A custom cell that adds up its inputs, which each channel weighs by itself."""

    in_parallel = True

    def build(self, input_shape):
        between = keras.initializers.RandomUniform(0.2, 2.0, seed=1)
        self.weight = self.add_weight(input_shape[-1:], between, name="weight")
        self.bias = self.add_weight(input_shape[-1:], "zeros", name="bias")

    def _weighted(self, total):
        return self.weight * total + self.bias

    def over_time(self, inputs):
        total = ops.cumsum(ops.cast(inputs, self.weight.dtype), axis=1)
        return self._weighted(total)

    def step(self, inputs, state):
        total = state + ops.cast(inputs, state.dtype)
        membrane = self._weighted(total)
        return membrane, self.fire(membrane), total


def by_channel():
    return Neuron(ByChannelCell(0.8))


class OwnBiasesCell(PSNCell):
    """A subclass that does not compute otherwise, but has other weights."""

    def build(self, input_shape):
        steps = self.timesteps
        self.weight = self.add_weight((steps, steps), "orthogonal", name="weight")
        self.bias = self.add_weight((steps, input_shape[-1]), "zeros", name="bias")


def own_biases():
    return Neuron(OwnBiasesCell(T))


def test_a_custom_cell_may_have_weights_of_channels():
    rsnn.testing.check_cell(ByChannelCell(0.8))


@pytest.mark.parametrize("make", [psn, sliding, by_channel, own_biases])
@pytest.mark.parametrize("is_padded", [False, True], ids=["full", "padded"])
def test_windows_of_constant_inputs_are_bptt(make, is_padded):
    x = np.repeat(frames()[:, [0, 3]], (2, 3), axis=1)
    if is_padded:
        x[1:, 3:] = 0.0
    found, expected = (
        results(make, gradient, x=x, depth=1, mask_value=0.0 if is_padded else None)
        for gradient in (Rate(windows=(2, 3)), "bptt")
    )
    assert_same(found, expected)


@both_step_modes
def test_padding_in_gaps_moves_the_queue(step_mode):
    x, mask = frames(), np.ones((4, T), bool)
    mask[:, 2] = False
    model = spiking(chain(sliding()), T, step_mode=step_mode, return_sequences=True)
    expected = to_numpy(model(x * mask[..., None])) * mask[..., None]
    np.testing.assert_array_equal(to_numpy(model(x, mask=mask)), expected)


@both_step_modes
def test_a_membrane_that_was_not_finite_is_nan_for_ever_whatever_the_order(step_mode):
    """NaN, infinity, and a sum that overflows, each in a sample of its own."""
    makers = [lambda order=order: SlidingPSN(order) for order in (1, 2)]
    makers += [lambda order=order: MaskedPSN(T, order) for order in (1, 2)]
    for make in makers:
        model = spiking(chain(make()), T, step_mode=step_mode)
        (neurons,) = neurons_of(model.network)
        neurons.cell.weight.assign(np.full(neurons.cell.weight.shape, 2.0))
        x = frames()
        x[:3, 1, 0] = np.nan, -np.inf, 3e38
        steps = [to_numpy(model.step(x[:, t])) for t in range(T)]
        for outputs in (steps[-1], to_numpy(model(x)), model.predict(x, verbose=0)):
            assert np.isnan(outputs[:3]).all()
            assert np.isfinite(outputs[3]).all()


@pytest.mark.backends(1)
def test_frozen_neurons_store_nothing_for_their_own_weights():
    from counted_operations import Counter

    memory, gradients, depth = [], [], 6
    # Slopes and inputs, of 8 neurons, in float32.
    of_a_layer = 2 * len(Y) * T * 8 * 4
    for trainable in (True, False):
        model = spiking(network(psn, depth), T, "rate")
        for layer in neurons_of(model.network):
            layer.trainable = trainable
        gradients.append(loss_and_gradients(model, frames(), Y)[1])
        with Counter() as counter:
            model(frames(), training=True)
        memory.append(counter.most_bytes)
    assert memory[0] - memory[1] > depth // 2 * of_a_layer
    assert len(gradients[1]) == len(gradients[0]) - 2 * depth
    of_dense, expected = (
        [value for path, value in found.items() if "dense" in path]
        for found in gradients
    )
    assert_same(of_dense, expected)


@pytest.mark.parametrize(
    ("timesteps", "order"),
    [(1, 3), (T, 1), (T, 12), (70, 3), (64, 9), (99, 20)],
    ids=["one step", "no queue", "long queue", "rest", "blocks", "long ends"],
)
def test_the_membranes_of_all_steps_are_weighted_sums_of_the_last_inputs(
    timesteps, order
):
    cell = SlidingPSNCell(order)
    cell.build((None, 2, 3))
    random = np.random.default_rng(0)
    x, factors = random.normal(size=(2, 2, timesteps, 2, 3)).astype("float32")
    weight = random.normal(size=order).astype("float32")

    def weighted(x, weight, factors):
        with keras.StatelessScope([(cell.weight, weight)]):
            return ops.sum(cell.over_time(x) * factors)

    def summed(x, weight):
        sums = np.zeros_like(x)
        for lag, factor in enumerate(weight[::-1][:timesteps]):
            sums[:, lag:] += factor * x[:, : timesteps - lag]
        return sums

    expected = [
        summed(factors[:, ::-1], weight)[:, ::-1],
        np.array([np.sum(factors * summed(x, one)) for one in np.eye(order)]),
        summed(x, weight) - 1.0,
    ]
    found = gradient_of(weighted, [x, weight, factors])
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.backends(1)
def test_a_long_queue_takes_no_more_operations_and_memory_than_a_short_one():
    from counted_operations import Counter

    counts = []
    for order in (3, 30):
        cell = SlidingPSNCell(order)
        cell.build((None, 64))
        x = ops.ones((4, 32, 64))
        with Counter() as counter:
            cell.over_time(x)
        counts.append([counter.operations, counter.most_bytes])
    (operations, memory), (operations_of_long, memory_of_long) = counts
    assert operations_of_long == operations
    # The end of a block before the first one.
    assert memory_of_long < 2 * memory


@pytest.mark.parametrize("gradient", [Rate(windows=(3, 2)), "bptt"], ids=str)
def test_long_queues_of_padded_sequences_have_the_same_gradients_in_both_step_modes(
    gradient,
):
    x = frames() * (np.arange(T) < np.array([[5], [4], [2], [3]]))[..., None]

    def results_of(step_mode):
        model = spiking(
            network(lambda: SlidingPSN(12)),
            T,
            gradient,
            step_mode=step_mode,
            mask_value=0.0,
        )
        return list(loss_and_gradients(model, x, Y)[1].values())

    assert_same(results_of("multi"), results_of("single"))


def test_online_methods_carry_no_gradient_between_steps_also_in_multi_step_mode():
    assert_same(results(sliding, "sltt"), results(sliding, "sltt", "single"))


@pytest.mark.backends(1)
def test_a_mask_is_raised_saved_and_must_be_complete_for_single_steps():
    message = r'`step_mode="single"` runs one time step.*MaskedPSN.*mask=1.0'
    model = spiking(network(half_masked), T, "rate")
    with pytest.raises(ValueError, match=message):
        model.step_mode = "single"
    model.compile("sgd", "mse")
    neurons = neurons_of(model.network)
    callback = rsnn.callbacks.RaiseMask(epochs=3, start=0.25)
    y = np.zeros((4, 3))
    model.fit(frames(), y, epochs=3, callbacks=[callback], verbose=0)
    assert [layer.mask for layer in neurons] == [1.0, 1.0]
    model.step_mode = "single"
    before = to_numpy(model(frames()))
    neurons[0].mask = 0.75
    with pytest.raises(ValueError, match="runs one time step"):
        model.predict(frames(), verbose=0)
    model.step_mode = "multi"
    assert not np.array_equal(to_numpy(model(frames())), before)
    again = neurons_of(saved_and_loaded(model).network)
    assert [layer.mask for layer in again] == [0.75, 1.0]


class NoisyPSNCell(PSNCell):
    def __init__(self, timesteps):
        super().__init__(timesteps)
        self.generator = keras.random.SeedGenerator(0)


ERRORS = [
    (
        lambda: spiking(network(lambda: Neuron(NoisyPSNCell(T))), T),
        "all steps of a parallel cell more than once.*draws random numbers",
    ),
    (lambda: spiking(network(psn), T + 1), "`timesteps` must be 5.*SlidingPSN"),
    (lambda: spiking(network(masked), T + 1), "`timesteps` must be at most 5"),
    (
        lambda: spiking(network(psn), T, step_mode="single"),
        "depend on inputs of later steps",
    ),
    (
        lambda: spiking(network(psn), T).step(frames()[:, 0]),
        "`step` runs one time step",
    ),
    (
        lambda: rsnn.deploy.export_step(spiking(network(psn), T), "step.onnx", "onnx"),
        "`export_step` runs one time step",
    ),
    (
        lambda: spiking(network(psn), T, "sltt"),
        'gradient="sltt" differentiates each time step by itself',
    ),
    (lambda: spiking(network(sliding), T, "ottt"), "ottt"),
    (
        lambda: MaskedPSN(4, 5),
        "`order` must be at most timesteps. Received: order=5 for timesteps=4",
    ),
]


@pytest.mark.backends(1)
@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_what_parallel_neurons_cannot_do_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class DoubledCell(SlidingPSNCell):
    """A custom cell with a derivative of its step, and none of all steps."""

    def over_time(self, inputs):
        return 2.0 * super().over_time(inputs)

    def step(self, inputs, state):
        single, _, state = super().step(inputs, state)
        membrane = 2.0 * single
        return membrane, self.fire(membrane), state

    def step_derivative(self, *args, **kwargs):
        along = super().step_derivative(*args, **kwargs)

        def doubled(*tangents):
            of_distance, state = along(*tangents)
            return 2.0 * of_distance, state

        return doubled


@pytest.mark.parametrize("gradient", ["rate", Rate(windows=2)], ids=str)
def test_a_custom_parallel_cell_with_a_step_derivative_has_its_gradient_in_both_modes(
    gradient,
):
    multi, single = (
        results(lambda: Neuron(DoubledCell(3)), gradient, step_mode)
        for step_mode in ("multi", "single")
    )
    assert_same(multi, single)


def test_of_a_custom_parallel_cell_all_earlier_inputs_are_said_to_reach_a_membrane():
    class CumulativeCell(NeuronCell):
        in_parallel = True

        def over_time(self, inputs):
            return ops.cumsum(inputs, axis=1) - self.threshold

    model = spiking(chain(Neuron(CumulativeCell())), T)
    (additions,) = rsnn.analysis.energy(model, frames()).multiply_adds
    assert additions == 6 * T * (T + 1) / 2
