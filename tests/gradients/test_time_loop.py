"""The time loop of a neuron layer: a compiled loop equals the unrolled loop."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    data,
    loss_and_gradients,
    response,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core import backend

pytestmark = pytest.mark.on_each_backend


class CountingCell(rsnn.layers.NeuronCell):
    """A state of a membrane and an integer, and a weight: its derivative is found by
    forward mode."""

    def build(self, input_shape):
        self.gain = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(1.3),
            name="gain",
        )

    def initial_state(self, inputs):
        return {
            "membrane": super().initial_state(inputs),
            "steps": ops.zeros((), "int32"),
        }

    def step(self, inputs, state):
        leak = ops.where(state["steps"] % 2 == 0, 0.9, 0.5)
        membrane = leak * ops.tanh(state["membrane"]) + self.gain * ops.cast(
            inputs, "float32"
        )
        spikes = self.fire(membrane)
        return (
            membrane,
            spikes,
            {
                "membrane": membrane - spikes * self.threshold,
                "steps": state["steps"] + 1,
            },
        )


CELLS = {
    "lif": lambda: rsnn.layers.LIFCell(0.6, threshold=0.7),
    "hard reset, not detached": lambda: rsnn.layers.LIFCell(
        0.6, reset="hard", v_reset=0.2, detach_reset=False
    ),
    "delayed, hard": lambda: rsnn.layers.LIFCell(
        0.6, 0.4, reset="hard", decay_input=True, reset_delay=True, learn_threshold=True
    ),
    "values of each neuron": lambda: rsnn.layers.LIFCell(
        np.linspace(0.4, 0.8, 5),
        initial_membrane=np.linspace(0.6, -0.2, 5),
        reset="hard",
        v_reset=np.linspace(-0.3, 0.3, 5),
    ),
    "all that is learned": lambda: rsnn.layers.ParametricLIFCell(
        0.4, per_channel=True, learn_threshold=True
    ),
    "of one's own, with a counter and a weight": lambda: CountingCell(),
}


def steps_unrolled(monkeypatch, steps):
    monkeypatch.setattr(backend, "unrolled_steps", lambda with_gradient: steps)


CASES = [
    ((1,), False, "float32"),
    ((7,), False, "mixed_bfloat16"),
    ((1, 2, 4), True, "float32"),
]


@pytest.mark.parametrize(
    ("name", "windows", "static", "policy"),
    [
        *((name, (2,), False, "float32") for name in CELLS),
        *(
            (name, *case)
            for name in ("lif", "of one's own, with a counter and a weight")
            for case in CASES
        ),
    ],
)
def test_a_compiled_loop_equals_the_unrolled_loop(
    name, windows, static, policy, monkeypatch
):
    """The spikes of each step, and the derivatives of the rate of each window."""
    keras.config.set_dtype_policy(policy)
    timesteps = sum(windows)
    neurons = spiking(
        neurons_of(CELLS[name]()),
        timesteps,
        rsnn.gradients.Rate(windows=windows),
        return_sequences=True,
    )
    generator = np.random.default_rng(0)
    current = generator.normal(
        0.5, 1.0, (3, 5) if static else (3, timesteps, 5)
    ).astype("float32")
    weights = generator.normal(size=(3, timesteps, 5)).astype("float32")
    assert neurons.compute_dtype == ("float32" if policy == "float32" else "bfloat16")
    results = []
    for steps in (timesteps, 1):
        steps_unrolled(monkeypatch, steps)
        outputs, of_inputs, of_variables = response(neurons, [current], [weights])
        results.append([*outputs, *of_inputs, *of_variables.values()])
    spikes, of_inputs, *_ = results[0]
    assert 0 < spikes.mean() < 1
    assert of_inputs.all()
    assert_close(*results, rtol=1e-5, atol=1e-6)


def neurons_of(cell):
    inputs = keras.Input((5,))
    return keras.Model(inputs, rsnn.layers.Neuron(cell)(inputs))


class NoisyCell(rsnn.layers.LIFCell):
    """Draws random numbers from a generator with its own state."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def step(self, inputs, state):
        return super().step(
            inputs + keras.random.normal(ops.shape(inputs), seed=self.generator), state
        )


def test_a_cell_that_draws_random_numbers_draws_the_same_ones_in_a_loop(monkeypatch):
    results = []
    for steps in (6, 1):
        steps_unrolled(monkeypatch, steps)
        cell = NoisyCell()
        neurons = spiking(neurons_of(cell), 6, return_sequences=True)
        _, _, spikes = training_results(
            neurons,
            np.zeros((4, 5), "float32"),
            np.zeros(4),
            lambda y, outputs: ops.mean(outputs),
        )
        results.append((spikes, to_numpy(cell.generator.state)))
    by_step = results[0][0]
    assert (by_step[:, 1:] != by_step[:, :-1]).any()
    assert_close(*results, rtol=0)


# On TensorFlow BPTT is never given a loop.
@pytest.mark.parametrize(
    "gradient", ["rate"] if BACKEND == "tensorflow" else ["rate", "bptt"]
)
def test_gradients_are_the_same_with_and_without_a_loop(gradient, monkeypatch):
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(rsnn.layers.LIF()(x)))
    x = rsnn.layers.ParametricLIF(learn_threshold=True)(x)
    shared = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    x, y = data(6, (5, 6, 6, 2))
    results = []
    for steps in (5, 1):
        steps_unrolled(monkeypatch, steps)
        results.append(loss_and_gradients(spiking(shared, 5, gradient), x, y))
    (loss, gradients), (looped_loss, looped_gradients) = results
    assert looped_loss == pytest.approx(loss, rel=1e-5)
    assert_close(looped_gradients, gradients, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_a_counter_waits_at_padding_also_in_a_loop(gradient, monkeypatch):
    steps_unrolled(monkeypatch, 1)
    keras.utils.set_random_seed(0)
    x, y = data(2, (4, 6))
    inputs = keras.Input((6,))
    network = keras.Model(
        inputs,
        layers.Dense(3)(rsnn.layers.Neuron(CountingCell())(layers.Dense(8)(inputs))),
    )
    late, early = (np.pad(x, [(0, 0), pads, (0, 0)]) for pads in ((1, 0), (0, 1)))
    expected = loss_and_gradients(spiking(network, 4, gradient), x, y)
    model = spiking(network, 5, gradient, mask_value=0.0)
    for padded in (late, early):
        for found, right in zip(
            loss_and_gradients(model, padded, y), expected, strict=True
        ):
            found, right = (
                of if isinstance(of, float) else list(of.values())
                for of in (found, right)
            )
            keras.tree.map_structure(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                found,
                right,
            )
