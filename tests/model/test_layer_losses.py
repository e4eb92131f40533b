"""Losses added by layers or activity regularizers count once, with any method, in both
step modes."""

import itertools
import threading

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    data,
    gradient_of,
    in_threads,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT, Rate

T = 3
X, Y = data(shape=(T, 6))
RATES = ["rate", Rate(windows=(1, 2)), Rate(windows=T)]
every_step_mode = pytest.mark.parametrize("step_mode", ["multi", "single"])


def nothing(y, outputs):
    """A loss of 0."""
    return 0.0 * ops.sum(outputs)


class AddsMean(layers.Layer):
    """Adds the mean of its input to the loss, and a sublayer's activity
    regularisation."""

    def __init__(self, draws=False, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Activation(
            "linear", activity_regularizer=keras.regularizers.L1(0.5)
        )
        self.generator = keras.random.SeedGenerator(0) if draws else None

    def call(self, inputs):
        self.add_loss(ops.mean(inputs))
        outputs = self.inner(inputs)
        if self.generator is not None:
            noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
            outputs = outputs + 0.0 * noise
        return outputs


class AddsMeanInTime(AddsMean):
    def call(self, inputs, time_step=None):
        return super().call(inputs)


def added(make, gradient, step_mode="multi", static=False, x=X):
    """The losses that a network adds to one that is 0, and their gradients; `make()` is
    its layer before or after neurons."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden, layer, neurons = layers.Dense(8)(inputs), make(), rsnn.layers.LIF()
    outputs = neurons(layer(hidden)) if static else layer(neurons(hidden))
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(outputs)), T, gradient, step_mode=step_mode
    )
    loss, gradients = loss_and_gradients(model, x, Y, nothing)
    return loss, next(iter(gradients.values()))


def rates_of_seed():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    return to_numpy(
        spiking(keras.Model(inputs, rsnn.layers.LIF()(layers.Dense(8)(inputs))), T)(X)
    )


@every_step_mode
@pytest.mark.parametrize(
    "make",
    [AddsMean, AddsMeanInTime, lambda: AddsMean(draws=True)],
    ids=["plain", "timed", "draws"],
)
def test_a_loss_that_a_layer_adds_to_steps_counts_once_with_its_gradient(
    make, step_mode
):
    rates = rates_of_seed()
    expected = rates.mean() + 0.5 * np.abs(rates).sum() / len(X)
    value, by_bptt = added(make, "bptt", step_mode)
    assert value == pytest.approx(expected, rel=1e-5)
    assert np.abs(by_bptt).max() > 0
    # A layer that draws has no other rule for windows.
    for method in RATES if make in (AddsMean, AddsMeanInTime) else RATES[::2]:
        loss, by_rate = added(make, method, step_mode)
        assert loss == pytest.approx(expected, rel=1e-5), method
        if method is RATES[-1]:
            np.testing.assert_allclose(by_rate, by_bptt, rtol=1e-4, atol=1e-6)
        lengths = np.linalg.norm(by_rate) * np.linalg.norm(by_bptt)
        assert np.sum(by_rate * by_bptt) > 0.5 * lengths


@every_step_mode
def test_a_loss_that_a_layer_adds_before_time_begins_is_that_of_one_call(step_mode):
    x = X[:, 0]
    expected, by_bptt = added(AddsMean, "bptt", step_mode, static=True, x=x)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = to_numpy(keras.Model(inputs, layers.Dense(8)(inputs))(x))
    assert expected == pytest.approx(
        hidden.mean() + 0.5 * np.abs(hidden).sum() / len(x), rel=1e-5
    )
    for gradient in RATES[:2]:
        loss, found = added(AddsMean, gradient, step_mode, static=True, x=x)
        assert loss == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(found, by_bptt, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_fit_and_evaluate_add_the_loss_of_a_layer():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    outputs = AddsMean()(rsnn.layers.LIF()(layers.Dense(8, trainable=False)(inputs)))
    for step_mode in ("multi", "single"):
        model = spiking(keras.Model(inputs, outputs), T, step_mode=step_mode)
        model.compile("sgd", lambda y, outputs: 0.0 * ops.mean(outputs, axis=-1))
        y = np.zeros((10, 8))
        history = model.fit(X, y, batch_size=10, verbose=0).history
        rates = rates_of_seed()
        expected = rates.mean() + 0.5 * rates.sum() / 10
        assert history["loss"] == pytest.approx([expected], rel=1e-5)
        loss = model.evaluate(X, y, batch_size=10, verbose=0)
        assert loss == pytest.approx(expected, rel=1e-5)


@every_step_mode
def test_activity_regularisation_weights_windows_by_their_size(step_mode):
    """So functions that are linear in the rates, like L1, do not depend on the
    windows."""

    def make():
        return layers.ReLU(activity_regularizer=keras.regularizers.L1(0.1))

    expected, by_bptt = added(make, "bptt", step_mode)
    for method in RATES:
        loss, by_rate = added(make, method, step_mode)
        assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(by_rate, by_bptt, rtol=1e-4, atol=1e-6)


@every_step_mode
def test_the_activity_of_a_renormalisation_is_regularised_once(step_mode):
    inputs = keras.Input((6,))
    layer = layers.BatchNormalization(
        renorm=True, activity_regularizer=keras.regularizers.L1(0.5)
    )
    network = keras.Model(inputs, layer(rsnn.layers.LIF()(inputs)))
    model = spiking(network, T, "bptt", step_mode=step_mode, return_sequences=True)
    loss, _, outputs = training_results(model, X, Y, nothing)
    assert loss == pytest.approx(0.5 * np.abs(outputs).sum() / (T * len(X)), rel=1e-5)


@every_step_mode
@pytest.mark.parametrize("gradient", ["rate", "bptt", "sltt"])
def test_activity_regularisation_does_not_overflow_in_half_precision(
    gradient, step_mode
):
    """The sum over all steps would: float16 ends at 65,504."""
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((30_000,))
    outputs = rsnn.layers.LIF(activity_regularizer=keras.regularizers.L1(0.001))(inputs)
    model = spiking(keras.Model(inputs, outputs), T, gradient, step_mode=step_mode)
    model(np.full((2, 30_000), 2.0, "float32"), training=True)
    (loss,) = model.losses
    assert float(to_numpy(loss)) == pytest.approx(30.0, rel=1e-3)


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
    inputs = keras.Input((6,))
    regularizer = keras.regularizers.L1(0.1)
    layer = Waits(activity_regularizer=regularizer)
    model = spiking(keras.Model(inputs, rsnn.layers.LIF()(layer(inputs))), 1, "bptt")
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


class ScalesInTime(Scales):
    def call(self, inputs, time_step=None):
        return super().call(inputs)


class ScalesAndDraws(Scales):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return super().call(inputs) + 0.0 * keras.random.uniform(
            ops.shape(inputs), seed=self.generator
        )


def by_loop(kernel, chosen):
    """The loss and gradients of
    `test_losses_of_layers_have_the_gradient_of_the_chosen_steps` in a loop over
    steps."""
    cell = rsnn.layers.LIFCell()

    def loss(kernel, scale):
        state, total = ops.zeros((len(X), 8)), 0.0
        for t in range(T):
            _, spikes, state = cell.step(
                ops.matmul(ops.convert_to_tensor(X[:, t]), kernel),
                ops.stop_gradient(state),
            )
            outputs = spikes * scale
            of_step = (
                0.01 * ops.sum(outputs)
                + ops.mean(ops.square(outputs))
                + 0.1 * ops.sum(ops.abs(spikes)) / len(X)
            )
            total += (of_step if t in chosen else ops.stop_gradient(of_step)) / T
        return total

    values = [kernel, np.ones(8, "float32")]
    return float(to_numpy(loss(*map(ops.convert_to_tensor, values)))), gradient_of(
        loss, values
    )


every_way_of_online_steps = pytest.mark.parametrize(
    ("step_mode", "recompute"), [("multi", True), ("single", True), ("single", False)]
)


def traces_of(spikes):
    """What OTTT keeps of spikes `(batch, T, ...)` with a decay of 0.5."""
    traces = [0.0 * spikes[:, 0]]
    for t in range(T):
        traces.append(0.5 * traces[-1] + spikes[:, t])
    return np.stack(traces[1:])


@rsnn.affine
class ScalesByWeight(Scales):
    """The same, declared affine."""


@every_way_of_online_steps
def test_under_ottt_weights_have_the_gradient_of_their_loss_at_the_traces(
    step_mode, recompute
):
    """And what comes before them that at the spikes, as with the loss of the model."""
    inputs = keras.Input((6,))
    spikes = rsnn.layers.LIF(0.5)(layers.Dense(8, use_bias=False)(inputs))
    network = keras.Model(inputs, ScalesByWeight()(spikes))
    results = []
    for method in (OTTT, SLTT):
        model = spiking(network, T, method(recompute=recompute), step_mode=step_mode)
        loss, gradients = loss_and_gradients(model, X, Y, nothing)
        results.append((loss, *gradients.values()))
    (loss, by_kernel, by_scale), (expected, by_kernel_at_spikes, _) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(by_kernel, by_kernel_at_spikes, rtol=1e-4, atol=1e-6)
    steps = to_numpy(spiking(network, T, "bptt", return_sequences=True)(X))
    squares = np.square(traces_of(steps))
    by_hand = 2.0 * squares.sum(axis=(0, 1)) / (T * 10 * 8)
    np.testing.assert_allclose(by_scale, by_hand, rtol=1e-4, atol=1e-6)


@every_way_of_online_steps
def test_under_ottt_activity_regularisers_have_their_gradient_at_the_traces(
    step_mode, recompute
):
    """A linear regulariser of a linear layer: the gradient of a kernel is the trace."""
    keras.utils.set_random_seed(0)
    inputs, last = keras.Input((6,)), layers.Dense(1, activity_regularizer=ops.sum)
    network = keras.Model(inputs, last(rsnn.layers.LIF(0.5)(layers.Dense(8)(inputs))))
    model = spiking(network, T, OTTT(recompute=recompute), step_mode=step_mode)
    _, gradients = loss_and_gradients(model, X, Y, nothing)
    steps = to_numpy(
        spiking(keras.Model(inputs, last.input), T, "bptt", return_sequences=True)(X)
    )
    assert np.abs(steps).max() > 0
    expected = np.sum(traces_of(steps), axis=(0, 1))[:, None] / (T * 10)
    np.testing.assert_allclose(
        gradients[last.kernel.path], expected, rtol=1e-4, atol=1e-6
    )


class AddsTwo(layers.Layer):
    """Adds losses of different shapes."""

    def call(self, inputs):
        self.add_loss(ops.mean(inputs))
        self.add_loss(ops.mean(inputs, axis=0))
        return 1.0 * inputs


@every_step_mode
def test_the_losses_of_a_layer_may_have_different_shapes(step_mode):
    rates = rates_of_seed()
    for gradient in ("bptt", "rate", "sltt"):
        loss, _ = added(AddsTwo, gradient, step_mode)
        assert loss == pytest.approx(
            rates.mean() + rates.mean(axis=0).sum(), rel=1e-5
        ), gradient


class WithoutMasked(layers.Layer):
    """Adds a loss of what the Keras mask of its input leaves, which a sublayer finds on
    the tensor."""

    def __init__(self, inner=True, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.inner = WithoutMasked(inner=False) if inner else None

    def compute_mask(self, inputs, previous_mask):
        return previous_mask

    def call(self, inputs):
        if self.inner is not None:
            return self.inner(inputs)
        mask = getattr(inputs, "_keras_mask", None)
        unmasked = inputs if mask is None else ops.where(mask[..., None], inputs, 0.0)
        self.add_loss(ops.mean(unmasked))
        return 1.0 * inputs


def test_losses_of_chosen_steps_are_those_of_masked_tensors_in_both_orders():
    frames = np.random.default_rng(0).uniform(1.0, 2.0, (4, T, 4, 2)).astype("float32")
    frames[:, :, 3] = 0.0
    found = []
    for step_mode in ("multi", "single"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4, 2))
        x = layers.Dense(4, bias_initializer="ones")(
            rsnn.layers.IF()(layers.Masking()(inputs))
        )
        model = spiking(
            keras.Model(inputs, WithoutMasked()(x)),
            T,
            SLTT(random_steps=2, recompute=False),
            step_mode=step_mode,
        )
        found.append(loss_and_gradients(model, frames, Y[:4], nothing))
    (loss, gradients), (expected, of_single) = found
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(gradients.values(), of_single.values(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "step_mode", "recompute"),
    [
        (Scales, "multi", True),
        (Scales, "single", False),
        (ScalesInTime, "single", True),
        (ScalesAndDraws, "multi", True),
        (ScalesAndDraws, "single", True),
    ],
)
def test_losses_of_layers_have_the_gradient_of_the_chosen_steps(
    make, step_mode, recompute
):
    """Of a layer that adds one, and of an activity regulariser; the value is that of
    all steps, and nothing is rescaled."""
    inputs = keras.Input((6,))
    neurons = rsnn.layers.LIF(activity_regularizer=keras.regularizers.L1(0.1))
    scales = make()
    network = keras.Model(
        inputs, scales(neurons(layers.Dense(8, use_bias=False)(inputs)))
    )
    model = spiking(
        network, T, SLTT(random_steps=2, recompute=recompute), step_mode=step_mode
    )
    kernel = to_numpy(network.trainable_variables[0])
    expected = [
        by_loop(kernel, chosen) for chosen in itertools.combinations(range(T), 2)
    ]
    seen = set()
    for _ in range(4):
        scales.calls.assign(0.0)
        loss, found = loss_and_gradients(
            model, X, Y, loss=lambda y, outputs: 0.01 * ops.sum(outputs)
        )
        assert loss == pytest.approx(expected[0][0], rel=1e-5)
        distances = [
            max(
                np.abs(found[path] - of_loop).max()
                for path, of_loop in zip(found, gradients, strict=True)
            )
            for _, gradients in expected
        ]
        assert min(distances) < 1e-6
        seen.add(int(np.argmin(distances)))
        assert float(to_numpy(scales.calls)) == (
            1.0 if step_mode == "multi" and make is not ScalesAndDraws else T
        )
    assert len(seen) > 1


@pytest.mark.skipif(
    BACKEND != "jax", reason="other backends do not call models in a scope"
)
def test_layers_forget_the_losses_of_earlier_traces():
    """Their object ids may be those of later losses, which would count twice."""
    inputs = keras.Input((6,))
    neurons = rsnn.layers.LIF(activity_regularizer=keras.regularizers.L1(0.1))
    model = spiking(keras.Model(inputs, neurons(layers.Dense(8)(inputs))), T, "rate")
    loss_and_gradients(model, X, Y, loss=lambda y, outputs: ops.sum(outputs))
    before = set(neurons._loss_ids)
    neurons._loss_ids.add(-1)
    loss_and_gradients(model, X, Y, loss=lambda y, outputs: ops.sum(outputs))
    assert -1 not in neurons._loss_ids
    assert len(neurons._loss_ids) == len(before) == 1


def test_a_model_that_another_one_calls_twice_adds_the_losses_of_both_calls():
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activity_regularizer=keras.regularizers.L2(0.5))(inputs)
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(AddsMean()(rsnn.layers.LIF()(hidden)))),
        T,
        "bptt",
    )
    sums = []
    for part in (X, X - 1.0):
        model(part)
        sums.append(to_numpy(sum(model.losses)))
    one, other = keras.Input((T, 6)), keras.Input((T, 6))
    siamese = keras.Model([one, other], layers.Subtract()([model(one), model(other)]))
    siamese.compile(
        keras.optimizers.SGD(0.0), lambda y, outputs: 0.0 * ops.sum(outputs, axis=-1)
    )
    found = siamese.evaluate([X, X - 1.0], Y, batch_size=len(X), verbose=0)
    assert found == pytest.approx(sum(sums), rel=1e-5)
