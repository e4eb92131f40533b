"""Networks that a seed draws, against a loop over their steps in NumPy.

Depth, neurons, a product of two layers, method, step mode, padding, precision, engine,
whether the loss is of each step, and whether the model was saved and loaded: all are
drawn together. The loop has the derivative along one direction in the space of all
weights.
"""

import itertools

import keras
import numpy as np
import pytest
from dual_numbers import Dual, as_dual, averaged, detached, spike
from helpers import BACKEND, double_precision, registered, saved_and_loaded, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from tests.contract.test_contract import SEED

ROWS, FEATURES, UNITS, CLASSES, BATCH = 2, 3, 4, 2, 4
NEAR = 1e-5
"""A membrane so near to its threshold may be on the other side in float32."""


def drawn_neurons(random):
    reset = str(random.choice(["soft", "hard"]))
    return {
        "decay": float(random.choice([0.0, 0.3, 0.6, 0.9])),
        "threshold": float(random.uniform(0.2, 0.8)),
        "reset": reset,
        "v_reset": -0.2 if reset == "hard" else 0.0,
        "detach_reset": bool(random.integers(2)),
        "decay_input": bool(random.integers(2)),
        "initial_membrane": float(random.choice([0.0, 0.1])),
    }


class Case:
    """What the seed draws."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.timesteps = int(random.integers(3, 7))
        self.neurons = [drawn_neurons(random) for _ in range(random.integers(1, 4))]
        self.has_product = bool(random.integers(2)) and len(self.neurons) > 1
        windows = int(random.integers(1, self.timesteps + 1))
        begin = int(random.integers(1, self.timesteps))
        two = begin, self.timesteps - begin
        methods = [
            ("bptt", (1,) * self.timesteps),
            ("sltt", (1,) * self.timesteps),
            ("rate", (self.timesteps,)),
            # The first steps have a window each.
            (Rate(windows), (*[1] * (windows - 1), self.timesteps - windows + 1)),
            (Rate(two), two),
        ]
        self.method, self.sizes = methods[random.integers(len(methods))]
        self.step_mode = str(random.choice(["multi", "single"]))
        self.precision = str(random.choice(["float32", "float64"]))
        self.is_saved = bool(random.integers(2))
        self.jit_compile = bool(random.integers(2))
        self.lengths = np.full(BATCH, self.timesteps)
        if random.integers(2):
            self.lengths = random.integers(1, self.timesteps + 1, BATCH)
        depth = len(self.neurons)
        sizes = [FEATURES, *[UNITS] * depth, CLASSES]
        self.kernels = [
            random.normal(0.3, 0.8, pair) for pair in itertools.pairwise(sizes)
        ]
        self.direction = [random.normal(size=kernel.shape) for kernel in self.kernels]
        shape = (self.timesteps, BATCH, ROWS, FEATURES)
        self.frames = random.normal(0.4, 1.0, shape)
        self.is_of_steps = bool(random.integers(2))
        steps = (self.timesteps,) if self.is_of_steps else ()
        # Keras' losses take labels in single precision.
        upstream = random.normal(size=(BATCH, *steps, ROWS, CLASSES))
        self.upstream = upstream.astype("float32")

    @property
    def counts(self):
        """Whether a step counts, `(T, batch, 1, 1)`."""
        steps = np.arange(self.timesteps)[:, None] < self.lengths
        return steps[..., None, None].astype("float64")

    def averaged(self, steps):
        """The mean of the window of each step."""
        return averaged(steps, self.sizes, self.counts)

    def answer(self, steps):
        """What the model returns of outputs at each step, or of their changes."""
        counted = self.counts * steps
        if self.is_of_steps:
            return counted.swapaxes(0, 1)
        return np.sum(counted, axis=0) / self.lengths[:, None, None]

    def network(self):
        dtype = keras.config.dtype_policy().compute_dtype
        x = inputs = keras.Input((ROWS, FEATURES), dtype=dtype)
        for index, neurons in enumerate(self.neurons):
            x = layers.Conv1D(UNITS, 1, use_bias=False)(x)
            x = rsnn.layers.LIF(**neurons)(x)
            if index == 0:
                first = x
        x = layers.Multiply()([first, x]) if self.has_product else x
        return keras.Model(inputs, layers.Conv1D(CLASSES, 1, use_bias=False)(x))


def slow_neurons(case, settings, values, changes):
    """Spikes, their changes, and how near a membrane comes to its threshold."""
    start = np.full(values.shape[1:], settings["initial_membrane"])
    state, spikes, nearest = as_dual(start), [], np.inf
    scale = 1.0 - settings["decay"] if settings["decay_input"] else 1.0
    for current, change, count in zip(values, changes, case.counts, strict=True):
        if case.method == "sltt":
            state = detached(state)
        membrane = settings["decay"] * state + scale * Dual(current, change)
        distance = membrane - settings["threshold"]
        nearest = min(nearest, np.abs(distance.value).min())
        fired = spike(distance)
        resetting = detached(fired) if settings["detach_reset"] else fired
        if settings["reset"] == "soft":
            after = membrane - settings["threshold"] * resetting
        else:
            after = membrane * (1.0 - resetting) + settings["v_reset"] * resetting
        # A neuron waits while its sample has padding.
        state = after * count + state * (1.0 - count)
        spikes.append(fired * count)
    spiked = np.stack([one.value for one in spikes])
    changed = np.stack([one.derivative for one in spikes])
    return spiked, case.averaged(changed), nearest


def slow(case):
    """The outputs, their change if the weights change by the direction, and how near a
    membrane comes to its threshold."""
    values, changes, nearest = case.frames, np.zeros(case.frames.shape), np.inf
    hidden = zip(case.kernels, case.direction, strict=True)
    for settings, (kernel, by) in zip(case.neurons, hidden, strict=False):
        changes = case.averaged(values) @ by + changes @ kernel
        values, changes, near = slow_neurons(case, settings, values @ kernel, changes)
        nearest = min(nearest, near)
        if settings is case.neurons[0]:
            first = values, changes
    if case.has_product:
        of_last = case.averaged(first[0]) * changes
        changes = case.averaged(values) * first[1] + of_last
        values = values * first[0]
    changes = case.averaged(values) @ case.direction[-1] + changes @ case.kernels[-1]
    outputs = case.answer(values @ case.kernels[-1])
    return outputs, case.answer(changes), nearest


@registered
def product(y, outputs):
    return ops.sum(ops.cast(y, outputs.dtype) * outputs)


def trained(case):
    """The outputs, and the change of the loss along the direction, by a training step
    whose learning rate is 1."""
    model = rsnn.SpikingModel(
        case.network(),
        case.timesteps,
        case.method,
        case.step_mode,
        return_sequences=case.is_of_steps,
        mask_value=None if np.all(case.counts) else np.nan,
    )
    model = saved_and_loaded(model) if case.is_saved else model
    model.compile(keras.optimizers.SGD(1.0), product, jit_compile=case.jit_compile)
    x = np.where(case.counts, case.frames, np.nan).swapaxes(0, 1)
    x = x.astype(case.precision)
    weights = [kernel[None] for kernel in case.kernels]
    # PyTorch records the second of these.
    for _ in range(2 if BACKEND == "torch" else 1):
        model.set_weights(weights)
        model.train_on_batch(x, case.upstream)
    steps = zip(weights, model.get_weights(), case.direction, strict=True)
    change = sum(np.sum((before - after) * by) for before, after, by in steps)
    model.set_weights(weights)
    return to_numpy(model(x)), change


def compared(case):
    expected, changes, _ = slow(case)
    settings = {}
    if BACKEND == "torch":
        settings = {"eager_calls": {"auto": 1, True: 1}, "compiler": "eager"}
    with rsnn.engine_settings(**settings):
        outputs, change = trained(case)
    # Numbers of steps that count are in single precision.
    tolerance = 1e-7 if case.precision == "float64" else 1e-5
    np.testing.assert_allclose(outputs, expected, rtol=10 * tolerance, atol=tolerance)
    # Terms of both signs leave little of the size by which they are rounded.
    terms = case.upstream * changes
    close = {"rtol": 0.0, "atol": tolerance * np.sum(np.abs(terms))}
    np.testing.assert_allclose(change, np.sum(terms), **close)


NUMBERS = [
    pytest.param(number, marks=() if number < 10 else pytest.mark.slow)
    for number in range(100)
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_network_is_the_slow_loop(number):
    seeds = ([SEED, number, again] for again in range(100))
    case = next(case for case in map(Case, seeds) if slow(case)[2] > NEAR)
    print(f"CONTRACT_SEED={SEED}: {vars(case)}")
    if case.precision == "float64":
        with double_precision():
            compared(case)
    else:
        compared(case)
