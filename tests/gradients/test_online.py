"""SLTT and OTTT against loops in NumPy; recomputed steps against stored ones."""

import keras
import naive_online
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    double_precision,
    gradient_of,
    loss_and_gradients,
    mlp,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT

METHODS = {"sltt": SLTT, "ottt": OTTT}


def squared_error(y, outputs):
    return ops.sum(ops.square(outputs - y)) / (2 * len(y))


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_a_loop_over_steps(method, step_mode):
    random = np.random.default_rng(0)
    frames, targets = random.normal(0.5, 1.0, (5, 7, 6)), random.normal(size=(7, 3))
    with double_precision():
        inputs = keras.Input((6,), dtype="float64")
        x = inputs
        for width in (8, 5):
            x = rsnn.layers.LIF(decay=0.5)(
                layers.Dense(width, bias_initializer="random_normal")(x)
            )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(x)), 5, method, step_mode=step_mode
        )
        _, found = loss_and_gradients(
            model, np.swapaxes(frames, 0, 1), targets, squared_error
        )
        weights = [to_numpy(variable) for variable in model.trainable_variables]
        expected = naive_online.gradients(
            weights, frames, targets, 0.5, traces=method == "ottt"
        )
    assert all(np.abs(gradient).max() > 1e-3 for gradient in expected)
    for variable, gradient in zip(model.trainable_variables, expected, strict=True):
        # Keras' matrix products on PyTorch are in single precision: sums of numbers of
        # about 1.
        rtol = 1e-5 if BACKEND == "torch" else 1e-9
        np.testing.assert_allclose(
            found[variable.path], gradient, rtol=rtol, atol=1e-2 * rtol
        )


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
        spikes = operation(
            rsnn.layers.LIF(decay=0.5, threshold=0.3)(layers.Dense(8)(inputs))
        )
        model = spiking(
            keras.Model(inputs, layers.Dense(3)(spikes)), 3, "ottt", step_mode=step_mode
        )
        return list(loss_and_gradients(model, x, y)[1].values())

    expected = gradients(lambda x: x, "multi")
    assert np.abs(expected[2]).max() > 1e-2
    for number, (name, operation) in enumerate(UNCHANGED.items()):
        assert_close(
            gradients(operation, ("multi", "single")[number % 2]),
            expected,
            rtol=1e-4,
            atol=1e-6,
            message=name,
        )


def network_of_everything():
    """Noise, batch normalisation of static and of other signals, a mask, a scale,
    regularisers, a frozen layer."""
    inputs = keras.Input((6,))
    static = layers.BatchNormalization()(layers.Dense(6)(inputs))
    spikes = rsnn.layers.BernoulliEncoder(seed=1)(inputs)
    x = layers.Add()(
        [layers.Dense(8)(spikes), layers.Dense(8, trainable=False)(static)]
    )
    x = rsnn.layers.LIF(activity_regularizer="l2")(layers.BatchNormalization()(x))
    x = layers.Rescaling(2.0)(layers.Dropout(0.5, seed=2)(x))
    x = rsnn.layers.ParametricLIF(learn_threshold=True)(
        layers.Dense(8, kernel_regularizer="l2")(x)
    )
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(2)(x)])


@pytest.mark.parametrize(
    ("method", "sequences"), list(zip(METHODS, (False, True), strict=True))
)
def test_recomputed_steps_give_the_gradients_and_leave_the_state_of_kept_ones(
    method, sequences
):
    x = np.random.default_rng(0).random((10, 6)).astype("float32")

    def loss(y, outputs):
        return sum(ops.mean(ops.square(output - 1.0)) for output in outputs)

    def trained(recompute):
        keras.utils.set_random_seed(0)
        network, gradient = (
            network_of_everything(),
            METHODS[method](recompute=recompute),
        )
        model = rsnn.SpikingModel(
            network, 4, gradient, step_mode="single", return_sequences=sequences
        )
        value, gradients = loss_and_gradients(model, x, x, loss)
        state = [to_numpy(variable) for variable in model.non_trainable_variables]
        return value, list(gradients.values()), state

    value, gradients, state = trained(recompute=True)
    expected_value, expected, expected_state = trained(recompute=False)
    assert value == pytest.approx(expected_value, rel=1e-5)
    # Of a bias before a batch normalisation there is none.
    assert (
        sum(np.abs(gradient).max() > 1e-4 for gradient in expected) > len(expected) - 4
    )
    assert_close(
        [*gradients, *state], [*expected, *expected_state], rtol=1e-4, atol=1e-6
    )


@pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)
@pytest.mark.parametrize("method", METHODS)
def test_masks_on_tensors_are_the_same_in_recomputed_steps_and_in_both_orders(method):
    """Keras finds the mask of one tensor in a list on the tensor itself, be that the
    same at every step or not."""
    ids, frames = keras.Input((5,), dtype="int32"), keras.Input((5, 8))
    static = layers.Embedding(10, 8, mask_zero=True)(ids)
    spikes = rsnn.layers.LIF()(layers.Dense(8)(layers.Dense(8)(static)))
    masked = layers.Masking()(frames)
    x = layers.Add()(
        [layers.Attention()([spikes, static]), layers.Attention()([masked, masked])]
    )
    hidden = rsnn.layers.LIF()(layers.Dense(8)(layers.Flatten()(x)))
    network = keras.Model([ids, frames], layers.Dense(3)(hidden))
    random = np.random.default_rng(0)
    inputs = [
        random.integers(0, 3, (6, 5)),
        random.normal(0.5, 1.0, (6, 2, 5, 8)).astype("float32"),
    ]
    inputs[1][:, :, 3:] = 0.0
    y = np.arange(6) % 3
    kept = spiking(network, 2, METHODS[method](recompute=False), step_mode="single")
    value, expected = loss_and_gradients(kept, inputs, y)
    for step_mode in ("single", "multi"):
        found_value, found = loss_and_gradients(
            spiking(network, 2, method, step_mode=step_mode), inputs, y
        )
        assert found_value == pytest.approx(value, rel=1e-5)
        assert_close(found, expected, rtol=1e-4, atol=1e-6)


def spectral(timesteps, gradient, step_mode="single", power_iterations=1):
    """The loss and the gradients of a batch, for layers that assign their weights at
    each step."""
    keras.utils.set_random_seed(0)
    x, y = data()
    inputs = keras.Input((6,))

    def dense(units, **kwargs):
        return layers.SpectralNormalization(
            layers.Dense(units), power_iterations, **kwargs
        )

    spikes = rsnn.layers.LIF(threshold=0.3)(dense(8)(inputs))
    outputs = dense(3)(
        rsnn.layers.LIF(threshold=0.3)(dense(8, trainable=False)(spikes))
    )
    model = spiking(
        keras.Model(inputs, outputs), timesteps, gradient, step_mode=step_mode
    )
    value, gradients = loss_and_gradients(model, x, y)
    return [value, *gradients.values()]


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_a_layer_assigns_have_one_gradient_in_kept_and_recomputed_steps(
    method,
):
    expected = spectral(3, METHODS[method](recompute=False))
    assert_close(spectral(3, METHODS[method]()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("sltt", "single")]
)
def test_weights_that_a_layer_assigns_have_the_gradient_of_bptt_at_one_step(
    gradient, step_mode
):
    """With so many iterations that the norm is nearly the same when the layer is
    evaluated once more."""
    expected = spectral(1, "bptt", step_mode, 20)
    assert_close(spectral(1, gradient, step_mode, 20), expected, rtol=1e-2, atol=5e-4)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_only_random_steps_carry_gradient_and_they_are_drawn_for_each_batch(step_mode):
    x, y = data()
    network = mlp()

    def output_gradient(random_steps):
        model = spiking(network, 4, SLTT(random_steps), step_mode=step_mode)
        found = [loss_and_gradients(model, x, y)[1] for _ in range(3)]
        return np.array([list(gradients.values())[-1] for gradients in found])

    # The bias of the output has the same gradient in each step.
    whole = loss_and_gradients(spiking(network, 4, "sltt", step_mode=step_mode), x, y)[
        1
    ]
    bias = list(whole.values())[-1]
    np.testing.assert_allclose(
        output_gradient(1), np.tile(bias / 4, (3, 1)), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        output_gradient(3), np.tile(bias * 0.75, (3, 1)), rtol=1e-4, atol=1e-7
    )
    model = spiking(network, 4, SLTT(random_steps=1), step_mode=step_mode)
    kernels = [
        next(iter(loss_and_gradients(model, x, y)[1].values())) for _ in range(8)
    ]
    assert 2 <= len({kernel.round(6).tobytes() for kernel in kernels}) <= 4


@pytest.mark.skipif(BACKEND != "torch", reason="counts operations of PyTorch")
def test_a_random_step_without_gradient_costs_a_forward_pass():
    """Of a step, convolutions forward and backward: those that always run, and those
    that run if it is chosen."""
    inputs = keras.Input((6, 6, 2))
    x = inputs
    for _ in range(2):
        x = rsnn.layers.LIF()(layers.Conv2D(4, 3, padding="same")(x))
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    model = compiled(spiking(network, 4, SLTT(random_steps=2), step_mode="single"))
    found = _convolutions(model, np.ones((4, 4, 6, 6, 2), "float32"))
    # PyTorch knows that frames need no gradient.
    assert found == (2, 3)


def _convolutions(model, x):
    """In a recorded call: two sweeps forward."""
    import torch
    from recorded_calls import recording
    from torch.utils._python_dispatch import TorchDispatchMode

    called = []

    class Calls(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            called.append(operation)
            # Both gradients, or that of the kernel.
            called.extend([operation] * (operation is backward and args[-1][0]))
            return operation(*args, **(kwargs or {}))

    forward, backward = (
        torch.ops.aten.convolution.default,
        torch.ops.aten.convolution_backward.default,
    )
    with recording():
        for _ in range(2):
            model(x, training=True)
    assert model.engine == "recorded"
    with Calls():
        outputs = model(x, training=True)
        torch.autograd.grad(
            ops.sum(outputs),
            [variable.value for variable in model.trainable_variables],
            allow_unused=True,
        )
    return called.count(forward) / (2 * model.timesteps), called.count(
        backward
    ) / model.gradient.random_steps


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_random_steps_are_drawn_from_those_that_are_not_padding(step_mode):
    """Each with the same probability, of however many samples; if there are fewer, all
    of them carry gradient."""
    x, y = data(4, (4, 6))
    x[np.arange(4) >= np.array([2, 1, 1, 1])[:, None]] = np.nan
    network = mlp()

    def output_gradients(gradient, batches):
        step = training_step(
            spiking(network, 4, gradient, step_mode=step_mode, mask_value=np.nan)
        )
        return np.array([[*step(x, y)[1].values()][-1] for _ in range(batches)])

    (whole,) = output_gradients("sltt", 1)
    drawn = output_gradients(SLTT(random_steps=1), 8)
    # Those of the first step, and of the second.
    first, second = np.unique(drawn.round(6), axis=0)
    assert min(np.abs(first).max(), np.abs(second).max()) > 0.01
    np.testing.assert_allclose(first + second, whole, atol=1e-5)
    np.testing.assert_allclose(
        output_gradients(SLTT(random_steps=3), 1)[0], whole, rtol=1e-4, atol=1e-7
    )


def test_more_random_steps_than_there_are_is_an_error_before_training():
    model = compiled(spiking(timesteps=2, gradient=SLTT(random_steps=3)))
    with pytest.raises(
        ValueError,
        match=r"`random_steps` must be at most timesteps. Received: random_steps=3 for "
        r"timesteps=2",
    ):
        model.fit(*data(), verbose=0)
    model.timesteps = 3
    model.fit(*data(), verbose=0)


def test_a_callback_may_set_the_method_in_the_middle_of_training():
    x, y = data()
    model = compiled(spiking(timesteps=4))

    class Switch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.gradient = SLTT(random_steps=2)

    before = [to_numpy(variable) for variable in model.trainable_variables]
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[Switch()])
    assert isinstance(model.gradient, SLTT)
    assert all(
        np.abs(old - to_numpy(new)).max() > 0
        for old, new in zip(before, model.trainable_variables, strict=True)
    )


@pytest.mark.parametrize("recompute", [True, False])
def test_inputs_have_the_gradient_of_all_steps(recompute):
    """An input with time, so that each step has its own frame."""
    x, _ = data(4, (5, 6))
    network = mlp()
    model = rsnn.SpikingModel(network, 5, SLTT(recompute=recompute), step_mode="single")
    (found,) = gradient_of(lambda frames: ops.sum(model(frames, training=True)), [x])
    multi = rsnn.SpikingModel(network, 5, "sltt")
    (expected,) = gradient_of(lambda frames: ops.sum(multi(frames, training=True)), [x])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
