"""SLTT and OTTT against loops in NumPy; recomputed steps against stored ones."""

import keras
import naive_online
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    both_step_modes,
    chain,
    compiled,
    data,
    double_precision,
    gradient_of,
    loss_and_gradients,
    mlp,
    only_on,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT
from keras_ratesnn.layers import LIF

METHODS = {"sltt": SLTT, "ottt": OTTT}


@both_step_modes
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_a_loop_over_steps(method, step_mode):
    random = np.random.default_rng(0)
    frames, targets = random.normal(0.5, 1.0, (5, 7, 6)), random.normal(size=(7, 3))
    with double_precision():
        network = chain(*naive_online.network_layers(), dtype="float64")
        model = spiking(network, 5, method, step_mode=step_mode)
        x = np.swapaxes(frames, 0, 1)
        _, found = loss_and_gradients(model, x, targets, naive_online.squared_error)
        weights = [to_numpy(variable) for variable in model.trainable_variables]
    expected = naive_online.gradients(
        weights, frames, targets, 0.5, traced=(1, 2) if method == "ottt" else ()
    )
    assert all(np.abs(gradient).max() > 1e-3 for gradient in expected)
    # Keras' matrix products on PyTorch are in single precision: sums of numbers of
    # about 1.
    rtol = 1e-5 if BACKEND == "torch" else 1e-9
    assert_close(list(found.values()), expected, rtol=rtol, atol=1e-2 * rtol)


UNCHANGED = {
    "a regulariser": layers.ActivityRegularization(l2=0.0),
    "a factor": lambda x: 0.5 * x + 0.5 * x,
    "a quotient": lambda x: 2.0 * (x / 2.0),
    "a mean": lambda x: ops.mean(ops.stack([x, x], axis=1), axis=1),
    "axes": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 8, 1)), (0, 2, 1)), (-1, 8)
    ),
    "a part": lambda x: ops.pad(x, ((0, 0), (1, 2)))[:, 1:9],
    "a product": lambda x: ops.matmul(x, ops.eye(8)),
}


def test_traces_pass_through_operations_that_are_linear():
    """What leaves spikes as they are leaves the gradient as it is."""
    x, y = data(shape=(3, 6))

    def gradients(operation, step_mode):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        spikes = LIF(decay=0.5, threshold=0.3)(layers.Dense(8)(inputs))
        network = keras.Model(inputs, layers.Dense(3)(operation(spikes)))
        model = spiking(network, 3, "ottt", step_mode=step_mode)
        return list(loss_and_gradients(model, x, y)[1].values())

    expected = gradients(lambda x: x, "multi")
    assert np.abs(expected[2]).max() > 1e-2
    for number, (name, operation) in enumerate(UNCHANGED.items()):
        found = gradients(operation, ("multi", "single")[number % 2])
        assert_close(found, expected, rtol=1e-4, atol=1e-6, message=name)


def results(
    network, x, y, timesteps, gradient, step_mode="single", loss=None, **options
):
    """The loss, the gradients, and the state after a step."""
    keras.utils.set_random_seed(0)
    model = spiking(network(), timesteps, gradient, step_mode=step_mode, **options)
    value, gradients = loss_and_gradients(model, x, y, loss)
    state = [to_numpy(variable) for variable in model.non_trainable_variables]
    return [value, *gradients.values(), *state]


def network_of_everything():
    """Noise, batch normalisation of static and of other signals, a mask, regularisers,
    a frozen layer, several outputs."""
    inputs = keras.Input((6,))
    static = layers.BatchNormalization()(layers.Dense(6)(inputs))
    spikes = rsnn.layers.BernoulliEncoder(seed=1)(inputs)
    frozen = layers.Dense(8, trainable=False)
    x = layers.Add()([layers.Dense(8)(spikes), frozen(static)])
    x = LIF(activity_regularizer="l2")(layers.BatchNormalization()(x))
    x = layers.Dense(8, kernel_regularizer="l2")(layers.Dropout(0.5, seed=2)(x))
    x = LIF(threshold=0.3)(x)
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(2)(x)])


def spectral_network():
    """Layers that assign their weights at each step."""

    def dense(units, **kwargs):
        return layers.SpectralNormalization(layers.Dense(units), **kwargs)

    frozen = dense(8, trainable=False)
    first, second = LIF(threshold=0.3), LIF(threshold=0.3)
    return chain(dense(8), first, frozen, second, dense(3))


def masked_network():
    """Keras finds the mask of one tensor in a list on the tensor itself, be that the
    same at every step or not."""
    ids, frames = keras.Input((5,), dtype="int32"), keras.Input((5, 8))
    static = layers.Embedding(10, 8, mask_zero=True)(ids)
    spikes, masked = LIF()(layers.Dense(8)(static)), layers.Masking()(frames)
    attention = layers.Attention()([spikes, static])
    x = layers.Add()([attention, layers.Attention()([masked, masked])])
    hidden = LIF()(layers.Dense(8)(layers.Flatten()(x)))
    return keras.Model([ids, frames], layers.Dense(3)(hidden))


def of_all_outputs(y, outputs):
    return sum(ops.mean(ops.square(output - 1.0)) for output in outputs)


RANDOM = np.random.default_rng(0)
STATIC = RANDOM.random((10, 6)).astype("float32")
IDS, FRAMES = RANDOM.integers(0, 3, (10, 5)), RANDOM.normal(0.5, 1.0, (10, 4, 5, 8))
FRAMES[:, :, 3:] = 0.0


@pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)
@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    ("network", "x", "options"),
    [
        (network_of_everything, STATIC, {"loss": of_all_outputs}),
        (spectral_network, STATIC, {}),
        (masked_network, [IDS, FRAMES.astype("float32")], {}),
    ],
)
def test_recomputed_steps_give_the_gradients_and_leave_the_state_of_kept_ones(
    network, x, options, method
):
    """With masks on tensors multi-step mode does, too."""
    y = np.arange(10) % 3
    expected = results(network, x, y, 4, method(recompute=False), **options)
    # Of a bias before a batch normalisation there is no gradient.
    assert sum(np.abs(value).max() > 1e-4 for value in expected) > len(expected) // 2
    for step_mode in ("single", "multi") if network is masked_network else ("single",):
        found = results(network, x, y, 4, method(), step_mode, **options)
        assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_weights_that_a_layer_assigns_have_the_gradient_of_bptt_at_one_step():
    """With so many iterations that the norm is nearly the same when the layer is
    evaluated once more."""

    def network():
        made = spectral_network()
        for layer in made.layers:
            layer.power_iterations = 20
        return made

    found, expected = (
        results(network, *data(), 1, method, "multi") for method in ("rate", "bptt")
    )
    assert_close(found, expected, rtol=1e-2, atol=5e-4)


def of_output(network, x, gradient, step_mode, batches):
    """The gradients of the bias of the output in each of several batches, which is the
    same in each step, and those of the first kernel."""
    model = spiking(network, 4, gradient, step_mode=step_mode, mask_value=np.nan)
    step, y = training_step(model), np.arange(len(x)) % 3
    found = [list(step(x, y)[1].values()) for _ in range(batches)]
    return np.array([one[-1] for one in found]), np.array([one[0] for one in found])


@both_step_modes
def test_only_random_steps_carry_gradient_and_they_are_drawn_for_each_batch(step_mode):
    network, (x, _) = mlp(), data(shape=(4, 6))
    x[:] = x[:, :1]
    (whole,), _ = of_output(network, x, "sltt", step_mode, 1)
    for random_steps, batches in ((1, 8), (3, 2)):
        bias, kernels = of_output(network, x, SLTT(random_steps), step_mode, batches)
        expected = np.tile(whole * random_steps / 4, (batches, 1))
        np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-7)
        if random_steps == 1:
            assert 2 <= len(np.unique(kernels.round(6), axis=0)) <= 4


@both_step_modes
def test_random_steps_are_drawn_from_those_that_are_not_padding(step_mode):
    """Each with the same probability, of however many samples; if there are fewer, all
    of them carry gradient."""
    network, (x, _) = mlp(), data(4, (4, 6))
    x[np.arange(4) >= np.array([2, 1, 1, 1])[:, None]] = np.nan
    (whole,), _ = of_output(network, x, "sltt", step_mode, 1)
    drawn, _ = of_output(network, x, SLTT(random_steps=1), step_mode, 8)
    # Those of the first step, and of the second.
    first, second = np.unique(drawn.round(6), axis=0)
    assert min(np.abs(first).max(), np.abs(second).max()) > 0.01
    np.testing.assert_allclose(first + second, whole, atol=1e-5)
    (all_steps,), _ = of_output(network, x, SLTT(random_steps=3), step_mode, 1)
    np.testing.assert_allclose(all_steps, whole, rtol=1e-4, atol=1e-7)


@only_on("torch", "counts operations of PyTorch")
def test_a_random_step_without_gradient_costs_a_forward_pass():
    """Of a step, convolutions forward and backward, in a recorded call: two sweeps
    forward, and gradients of a chosen step."""
    import torch
    from recorded_calls import recording

    parts = []
    for _ in range(2):
        parts += [layers.Conv2D(4, 3, padding="same"), LIF()]
    network = chain(*parts, layers.Flatten(), layers.Dense(3), shape=(6, 6, 2))
    model = compiled(spiking(network, 4, SLTT(random_steps=2), step_mode="single"))
    x = np.ones((4, 4, 6, 6, 2), "float32")
    with recording():
        for _ in range(2):
            model(x, training=True)
    assert model.execution == "recorded"
    weights = [variable.value for variable in model.trainable_variables]
    with torch.profiler.profile() as profile:
        outputs = ops.sum(model(x, training=True))
        torch.autograd.grad(outputs, weights, allow_unused=True)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::convolution"] == 2 * 2 * 4
    assert calls["aten::convolution_backward"] == 2 * 2


def test_more_random_steps_than_there_are_is_an_error_before_training():
    model = compiled(spiking(timesteps=2, gradient=SLTT(random_steps=3)))
    message = (
        "`random_steps` must be at most timesteps. Received: random_steps=3 for "
        "timesteps=2"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(*data(), verbose=0)


@pytest.mark.parametrize("recompute", [True, False])
def test_inputs_have_the_gradient_of_all_steps(recompute):
    """An input with time, so that each step has its own frame."""
    x, _ = data(4, (5, 6))
    network = mlp()
    single = spiking(network, 5, SLTT(recompute=recompute), step_mode="single")
    (found,), (expected,) = (
        gradient_of(lambda x, model=model: ops.sum(model(x, training=True)), [x])
        for model in (single, spiking(network, 5, "sltt"))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
