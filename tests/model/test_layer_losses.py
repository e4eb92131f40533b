"""Losses added by layers or activity regularizers count once, with any method, in both
step modes."""

import itertools
import threading

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    both_step_modes,
    chain,
    data,
    gradient_of,
    in_threads,
    loss_and_gradients,
    only_on,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT, Rate
from keras_ratesnn.layers import LIF, LIFCell

T = 3

X, Y = data(shape=(T, 6))

RATES = ["rate", Rate(windows=(1, 2)), Rate(windows=T)]


def nothing(y, outputs):
    """A loss of 0."""
    return 0.0 * ops.sum(outputs)


class AddsMean(layers.Layer):
    """Adds the mean of its input to the loss, and a sublayer's activity
    regularisation."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        half = keras.regularizers.L1(0.5)
        self.inner = layers.Activation("linear", activity_regularizer=half)

    def call(self, inputs):
        self.add_loss(ops.mean(inputs))
        return self.inner(inputs)


class AddsMeanInTime(AddsMean):
    def call(self, inputs, time_step=None):
        return super().call(inputs)


def model_of(make, gradient, step_mode, static=False, head=True):
    """A network with the layer `make()` before or after neurons."""
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(8)
    parts = [make(), LIF()] if static else [LIF(), make()]
    last = [layers.Dense(3)] if head else []
    network = chain(hidden, *parts, *last)
    return spiking(network, T, gradient, step_mode=step_mode)


def added(make, gradient, step_mode, static=False, x=X):
    """The losses that a network adds to one that is 0, and their gradients."""
    model = model_of(make, gradient, step_mode, static)
    loss, gradients = loss_and_gradients(model, x, Y, nothing)
    return loss, next(iter(gradients.values()))


def rates_of_seed():
    return to_numpy(model_of(layers.Identity, "rate", "multi", head=False)(X))


def regularized():
    return layers.ReLU(activity_regularizer=keras.regularizers.L1(0.1))


def mean_and_half_of_sums(x):
    return x.mean() + 0.5 * np.abs(x).sum() / len(x)


ADDED = [
    (AddsMean, mean_and_half_of_sums),
    (AddsMeanInTime, mean_and_half_of_sums),
    (regularized, lambda rates: 0.1 * rates.sum() / len(rates)),
]


@both_step_modes
@pytest.mark.parametrize(("make", "loss_of"), ADDED)
def test_a_loss_that_a_layer_adds_to_steps_counts_once_with_its_gradient(
    make, loss_of, step_mode
):
    """Windows weigh as much as their steps."""
    expected = pytest.approx(loss_of(rates_of_seed()), rel=1e-5)
    value, by_bptt = added(make, "bptt", step_mode)
    assert value == expected
    assert np.abs(by_bptt).max() > 0
    for method in RATES:
        loss, by_rate = added(make, method, step_mode)
        assert loss == expected, method
        if method is RATES[-1]:
            np.testing.assert_allclose(by_rate, by_bptt, rtol=1e-4, atol=1e-6)
        lengths = np.linalg.norm(by_rate) * np.linalg.norm(by_bptt)
        assert np.sum(by_rate * by_bptt) > 0.5 * lengths


@both_step_modes
def test_a_loss_that_a_layer_adds_before_time_begins_is_that_of_one_call(step_mode):
    x = X[:, 0]
    value, by_bptt = added(AddsMean, "bptt", step_mode, static=True, x=x)
    keras.utils.set_random_seed(0)
    hidden = to_numpy(chain(layers.Dense(8))(x))
    assert value == pytest.approx(mean_and_half_of_sums(hidden), rel=1e-5)
    for gradient in RATES[:2]:
        loss, by_rate = added(AddsMean, gradient, step_mode, static=True, x=x)
        assert loss == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(by_rate, by_bptt, rtol=1e-4, atol=1e-6)


@both_step_modes
def test_fit_and_evaluate_add_the_loss_of_a_layer(step_mode):
    expected = pytest.approx(mean_and_half_of_sums(rates_of_seed()), rel=1e-5)
    model = model_of(AddsMean, "rate", step_mode, head=False)
    model.compile("sgd", lambda y, outputs: 0.0 * ops.mean(outputs, axis=-1))
    y = np.zeros((10, 8))
    assert model.evaluate(X, y, verbose=0) == expected
    assert model.fit(X, y, verbose=0).history["loss"] == [expected]


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("bptt", "multi"), ("sltt", "single")]
)
def test_activity_regularisation_does_not_overflow_in_half_precision(
    gradient, step_mode
):
    """The sum over all steps would: float16 ends at 65,504."""
    keras.config.set_dtype_policy("mixed_float16")
    neurons = LIF(activity_regularizer=keras.regularizers.L1(0.001))
    network = chain(neurons, shape=(30_000,))
    model = spiking(network, T, gradient, step_mode=step_mode)
    model(np.full((2, 30_000), 2.0, "float32"), training=True)
    assert float(model.losses[0]) == pytest.approx(30.0, rel=1e-3)


def test_threads_do_not_affect_each_others_regularizers_and_losses():
    class Waits(layers.Layer):
        """Lets another thread enter its call during the first."""

        def call(self, inputs):
            if inside is not None:
                inside.wait(timeout=30)
                seen.append(self.activity_regularizer)
                inside.wait(timeout=30)
            return 1.0 * inputs

    inside, seen, losses = None, [], []
    regularizer = keras.regularizers.L1(0.1)
    layer = Waits(activity_regularizer=regularizer)
    model = spiking(chain(layer, LIF()), 1, "bptt")
    inside = threading.Barrier(2)
    in_threads(lambda: losses.append(model(X[:, 0])), [()] * 2)
    assert len(losses) == 2
    assert seen == [regularizer] * 2
    assert layer.activity_regularizer is regularizer


class Scales(layers.Layer):
    """Multiplies its input by a weight, adds the mean square of the result to the loss,
    and counts its calls."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign(self.calls + 1.0)
        outputs = inputs * self.scale
        self.add_loss(ops.mean(ops.square(outputs)))
        return outputs


def by_loop(kernel, chosen):
    """The loss and gradients of
    `test_losses_of_layers_have_the_gradient_of_the_chosen_steps` in a loop over
    steps."""
    cell = LIFCell()

    def loss(kernel, scale):
        state, total = ops.zeros((len(X), 8)), 0.0
        for t in range(T):
            _, spikes, state = cell.step(
                ops.matmul(ops.convert_to_tensor(X[:, t]), kernel),
                ops.stop_gradient(state),
            )
            outputs = spikes * scale
            step_loss = (
                0.01 * ops.sum(outputs)
                + ops.mean(ops.square(outputs))
                + 0.1 * ops.sum(ops.abs(spikes)) / len(X)
            )
            total += (step_loss if t in chosen else ops.stop_gradient(step_loss)) / T
        return total

    values = [kernel, np.ones(8, "float32")]
    return float(to_numpy(loss(*map(ops.convert_to_tensor, values)))), gradient_of(
        loss, values
    )


def traces_of(spikes):
    """What OTTT keeps of spikes `(batch, T, ...)` with a decay of 0.5."""
    traces = [0.0 * spikes[:, 0]]
    for t in range(T):
        traces.append(0.5 * traces[-1] + spikes[:, t])
    return np.stack(traces[1:])


@rsnn.layers.affine
class ScalesByWeight(Scales):
    """The same, declared affine."""


@pytest.mark.parametrize(
    ("step_mode", "recompute"), [("multi", True), ("single", True), ("single", False)]
)
def test_under_ottt_weights_have_the_gradient_of_their_loss_at_the_traces(
    step_mode, recompute
):
    """Added by a layer, or a linear regulariser of a linear layer. What comes before
    has that at the spikes, as with the loss of the model."""
    first, scales = layers.Dense(8, use_bias=False), ScalesByWeight()
    last = layers.Dense(1, activity_regularizer=ops.sum)
    spiking_part = chain(first, LIF(0.5))
    (spikes,) = spiking_part.outputs
    network = keras.Model(spiking_part.inputs, [last(spikes), scales(spikes)])
    results = []
    for method in (OTTT, SLTT):
        model = spiking(network, T, method(recompute=recompute), step_mode=step_mode)
        results.append(
            loss_and_gradients(model, X, Y, lambda y, outputs: nothing(y, outputs[0]))
        )
    (loss, gradients), (expected, at_spikes) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    counting = spiking(spiking_part, T, "bptt", return_sequences=True)
    traces = traces_of(to_numpy(counting(X)))
    assert np.any(traces)
    first, scale, kernel = first.kernel.path, scales.scale.path, last.kernel.path
    by_weight = {
        first: at_spikes[first],
        scale: 2.0 * np.square(traces).sum(axis=(0, 1)) / (T * 10 * 8),
        kernel: np.sum(traces, axis=(0, 1))[:, None] / (T * 10),
    }
    assert_close(gradients, by_weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("step_mode", "recompute"), [("multi", True), ("single", True), ("single", False)]
)
def test_losses_of_layers_have_the_gradient_of_the_chosen_steps(step_mode, recompute):
    """Of a layer that adds one, and of an activity regulariser; the value is that of
    all steps, and nothing is rescaled."""
    scales = Scales()
    neurons = LIF(activity_regularizer=keras.regularizers.L1(0.1))
    network = chain(layers.Dense(8, use_bias=False), neurons, scales)
    method = SLTT(random_steps=2, recompute=recompute)
    model = spiking(network, T, method, step_mode=step_mode)
    kernel = to_numpy(model.trainable_variables[0])
    pairs = itertools.combinations(range(T), 2)
    expected = [by_loop(kernel, chosen) for chosen in pairs]
    seen = set()
    for _ in range(4):
        scales.calls.assign(0.0)
        loss, gradients = loss_and_gradients(
            model, X, Y, loss=lambda y, outputs: 0.01 * ops.sum(outputs)
        )
        assert loss == pytest.approx(expected[0][0], rel=1e-5)
        distances = []
        for _, (by_kernel, by_scale) in expected:
            kernel_gradient, scale_gradient = gradients.values()
            distance = np.abs(kernel_gradient - by_kernel).max()
            distances.append(max(distance, np.abs(scale_gradient - by_scale).max()))
        assert min(distances) < 1e-6
        seen.add(int(np.argmin(distances)))
        assert float(to_numpy(scales.calls)) == (1.0 if step_mode == "multi" else T)
    assert len(seen) > 1


@only_on("jax", "other backends do not call models in a scope")
def test_layers_forget_the_losses_of_earlier_traces():
    """Their object ids may be those of later losses, which would count twice."""
    neurons = LIF(activity_regularizer=keras.regularizers.L1(0.1))
    model = spiking(chain(layers.Dense(8), neurons), T, "rate")
    for _ in range(2):
        loss_and_gradients(model, X, Y, nothing)
        assert len(neurons._loss_ids) == 1
        assert -1 not in neurons._loss_ids
        neurons._loss_ids.add(-1)


def test_a_model_that_another_one_calls_twice_adds_the_losses_of_both_calls():
    hidden = layers.Dense(8, activity_regularizer=keras.regularizers.L2(0.5))
    model = spiking(chain(hidden, LIF(), AddsMean()), T, "bptt")
    parts, expected = [X, X - 1.0], 0.0
    for part in parts:
        model(part)
        expected += to_numpy(sum(model.losses))
    given = [keras.Input((T, 6)) for _ in parts]
    siamese = keras.Model(given, layers.Subtract()(list(map(model, given))))
    siamese.compile("sgd", lambda y, outputs: 0.0 * ops.sum(outputs, axis=-1))
    loss = siamese.evaluate(parts, Y, batch_size=len(X), verbose=0)
    assert loss == pytest.approx(expected, rel=1e-5)
