"""What a training step costs, counted as the benchmark counts it: no gradient method
does more than it has to."""

import keras
import pytest
from helpers import BACKEND, compiled, data, loss_and_gradients, spiking
from keras import layers, ops
from reference_networks import res

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from recipes.benchmark import costs, measure
from recipes.layers import relu_network


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX's compiler counts FLOPs")
def test_a_step_costs_little_more_than_its_spiking_forward_and_one_backward():
    """T forwards and one backward, T + 2, of a network whose ordinary training step
    counts as three forwards."""
    import jax

    def flops(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        x, y = data(16, (8, 8, 3), classes=5)

        def objective(trainable, fixed):
            outputs, fixed = model.stateless_call(trainable, fixed, x, training=True)
            return loss(y, outputs), fixed

        values = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
        )
        return (
            jax.jit(jax.value_and_grad(objective, has_aux=True))
            .lower(*values)
            .compile()
            .cost_analysis()["flops"]
        )

    forward = flops(res(16, lambda: layers.ReLU())) / 3
    assert flops(spiking(res(16, rsnn.layers.LIF), 4)) < 6.5 * forward


@pytest.mark.skipif(
    BACKEND != "torch",
    reason="only PyTorch counts the FLOPs of the operations that run",
)
def test_a_recorded_step_does_not_compute_the_value_of_a_rate_twice():
    def flops(model):
        x, y = data(16, (8, 8, 3), classes=5)
        loss_and_gradients(model, x, y)
        return costs.counted_flops(lambda: loss_and_gradients(model, x, y))

    forward = flops(res(16, lambda: layers.ReLU())) / 3
    with rsnn.engine_settings(eager_calls={"auto": 0, True: 0}):
        assert flops(spiking(res(16, rsnn.layers.LIF), 4)) < 6.1 * forward


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX's compiler counts FLOPs")
def test_each_window_costs_two_more_forward_passes():
    images, labels = map(ops.convert_to_tensor, data(16, (8, 8, 3), classes=5))

    def flops(model):
        return costs.compiled(compiled(model), images, labels)["flops"]

    timesteps = 4
    forward = flops(res(16, lambda: layers.ReLU())) / 3
    for windows in (2, 4):
        step = flops(
            spiking(res(16, rsnn.layers.LIF), timesteps, Rate(windows=windows))
        )
        assert step / forward < timesteps + 2 * windows + 0.5


@pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="neither TensorFlow nor its compiler tells the memory of a step",
)
def test_memory_of_training_is_that_of_a_few_tensors_over_time():
    """Eight layers, T = 8: each may hold its own few tensors of all steps while it
    runs, and none afterwards."""
    inputs = x = keras.Input((16, 16, 8))
    for _ in range(8):
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
        x = rsnn.layers.LIF()(x)
    network = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images, labels = map(ops.convert_to_tensor, data(8, (16, 16, 8)))

    def temporary_memory(model):
        compiled(model)
        if BACKEND == "jax":
            return costs.compiled(model, images, labels)["memory_bytes"]
        with measure.recorded_at_once():
            for _ in range(2):
                model.train_on_batch(images, labels)
            return costs.memory_rise(lambda: model.train_on_batch(images, labels))

    one_layer_over_time = 8 * 8 * 16 * 16 * 8 * 4
    assert (
        temporary_memory(spiking(network, 8))
        < temporary_memory(relu_network(network)) + 4 * one_layer_over_time
    )
