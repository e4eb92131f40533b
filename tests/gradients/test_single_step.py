"""Single-step mode: memory that does not grow with T. That results are those of
multi-step mode is in the contract."""

from helpers import chain, data, only_on, spiking
from keras import layers, ops

from keras_ratesnn.layers import LIF, ParametricLIF


def temporary_bytes(timesteps, step_mode, gradient="rate"):
    """Of a compiled step of a network with a max pooling, whose rate differs from that
    of its input."""
    import jax

    parts = []
    for neurons in (LIF(), ParametricLIF(learn_threshold=True)):
        parts += [layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization()]
        parts += [neurons, layers.MaxPooling2D(2)]
    network = chain(*parts, layers.Flatten(), layers.Dense(3), shape=(8, 8, 2))
    model = spiking(network, timesteps, gradient, step_mode=step_mode)
    x, _ = data(64, (8, 8, 2))

    def objective(trainable, fixed):
        images = ops.convert_to_tensor(x)
        outputs, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return ops.sum(ops.square(outputs)), fixed

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    step = jax.jit(jax.value_and_grad(objective, has_aux=True))
    program = step.lower(trainable, fixed).compile()
    return program.memory_analysis().temp_size_in_bytes


@only_on("jax", "only JAX's compiler tells the memory of a step")
def test_memory_does_not_grow_with_time():
    assert temporary_bytes(16, "single") < 1.02 * temporary_bytes(4, "single")
    assert temporary_bytes(24, "multi") > 2 * temporary_bytes(24, "single")
    many, few = (temporary_bytes(steps, "single", "sltt") for steps in (16, 4))
    assert many < 1.15 * few
