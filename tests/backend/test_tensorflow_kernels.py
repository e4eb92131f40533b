"""TensorFlow without XLA: time loops of neurons as one pass over memory, and its own
kernels of batch normalisation."""

import keras
import numpy as np
import pytest
from drawn_networks import Drawing
from helpers import assert_close, compiled, data, spiking, to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.backend.tensorflow import fusion, normalization
from keras_ratesnn.layers import LIF, LIFCell, Neuron

METHODS = [
    ("rate", "multi"),
    ("rate", "single"),
    (rsnn.gradients.Rate(windows=2), "multi"),
    ("bptt", "multi"),
    ("ottt", "single"),
]


@pytest.fixture
def programs(monkeypatch):
    """The time loops that were compiled; those of the smallest layers are, too."""
    made = []

    class Counted(fusion._Program):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(fusion, "_Program", Counted)
    with rsnn.engine_settings(least_elements=0):
        yield made


def network(*neurons):
    layer = rsnn.layers
    neurons = neurons or (layer.LIF(), layer.ParametricLIF(), layer.ILIF())
    parts = [keras.Input((6,))]
    for neuron in neurons:
        parts += [layers.Dense(8), layers.BatchNormalization(), neuron]
    return keras.Sequential([*parts, layers.Dense(3)])


def trained(
    gradient="rate",
    step_mode="multi",
    neurons=(),
    timesteps=3,
    validated=False,
    **options,
):
    """The model, the losses and the weights after two epochs with a smaller last batch,
    whose size is not known when the step is traced."""
    keras.utils.set_random_seed(0)
    model = spiking(network(*neurons), timesteps, gradient, step_mode=step_mode)
    compiled(model, **options)
    x, y = data(14)
    fitting = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    validation_data = (x, y) if validated else None
    history = model.fit(3 * x, y, validation_data=validation_data, **fitting)
    weights = to_numpy([variable.value for variable in model.trainable_variables])
    return model, history.history["loss"], weights


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_compiled_loops_train_as_those_that_are_not(gradient, step_mode, programs):
    _, losses, weights = trained(gradient, step_mode, timesteps=2)
    assert len(programs) >= 3
    assert all(program.is_elementwise for program in programs)
    _, others, expected = trained(gradient, step_mode, timesteps=2, jit_compile=False)
    assert_allclose(losses, others, rtol=1e-5)
    assert_close(weights, expected, rtol=1e-4, atol=1e-6)


def test_all_steps_of_a_layer_share_a_program(programs):
    trained("bptt", "single", [LIF()], validated=True)
    # The first step starts from zeros.
    assert len(programs) <= 2


def test_a_long_loop_is_several_passes(programs, monkeypatch):
    monkeypatch.setattr(fusion, "LONGEST_PASS", {False: 2, True: 2})
    _, losses, _ = trained("bptt", neurons=[LIF()], validated=True)
    assert len(programs) == 2
    _, others, _ = trained("bptt", neurons=[LIF()], jit_compile=False)
    assert_allclose(losses, others, rtol=1e-5)


@pytest.mark.parametrize("options", [{"jit_compile": True}, {"run_eagerly": True}])
def test_nothing_is_compiled_where_it_was_not_asked_for_or_is_compiled_anyway(
    options, programs
):
    trained(neurons=[LIF()], validated=True, **options)
    assert programs == []


def test_graphs_for_inference_hold_nothing_compiled(programs):
    model, *_ = trained(neurons=[LIF()])
    programs.clear()
    model.predict(data(4)[0], verbose=0)
    assert programs == []


class Unusual(LIFCell):
    """With an operation that is not in the list."""

    def step(self, current, state):
        return super().step(ops.arctan(current), state)


class Costly(LIFCell):
    """With a loss."""

    def step(self, current, state):
        self.add_loss(ops.mean(ops.square(current)))
        return super().step(current, state)


@pytest.mark.parametrize("cell", [Unusual, Drawing, Costly])
def test_cells_that_cannot_be_one_pass_are_trained_without_compilation(cell, programs):
    _, losses, _ = trained("bptt", neurons=[Neuron(cell())])
    assert np.isfinite(losses).all()
    assert not any(program.is_elementwise for program in programs)


def test_a_tensorflow_without_xla_trains_without_compilation(programs, monkeypatch):
    fusion._xla_works.cache_clear()

    def missing(function):
        raise RuntimeError("XLA is not in this build")

    monkeypatch.setattr(fusion, "_compiled", missing)
    trained(neurons=[LIF()])
    assert programs == []
    fusion._xla_works.cache_clear()


@pytest.mark.parametrize(("size", "is_compiled"), [(2, True), (None, False)])
def test_images_of_any_size_are_not_compiled_again_for_each(
    size, is_compiled, programs
):
    import tensorflow as tf

    inputs = keras.Input((size, size, 1))
    x = LIF()(layers.BatchNormalization()(layers.Conv2D(1, 1)(inputs)))
    model = spiking(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), 2)
    train = tf.function(lambda images: model(images, training=True))
    train.get_concrete_function(tf.TensorSpec((None, size, size, 1)))
    assert bool(programs) == is_compiled


def operations(function, *shapes):
    import tensorflow as tf

    specs = [tf.TensorSpec(shape) for shape in shapes]
    graph = tf.function(function).get_concrete_function(*specs).graph
    return {operation.type for operation in graph.get_operations()}


def test_normalisation_is_one_operation_where_tensorflow_has_a_kernel():
    def normalize(x, parameter):
        return engine.normalize(x, -1, parameter, parameter, 1e-3)[0]

    def normalize_as(x, parameter):
        return engine.normalize_as(x, -1, *[parameter] * 4, 1e-3)

    for function in (normalize, normalize_as):
        for shape in ((None, 4), (None, 2, 2, 4)):
            names = operations(function, shape, (4,))
            assert "FusedBatchNormV3" in names
            assert "SquaredDifference" not in names


def test_second_derivatives_of_normalisation_are_those_of_plain_operations(
    monkeypatch,
):
    import tensorflow as tf

    x, _ = data(6)
    mean, variance = tf.fill([6], 0.3), tf.fill([6], 2.0)

    def derivative(function):
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = function(x)
            return tape.gradient(outputs, x)

        return gradient

    def cubes(x):
        parameters = variance, mean, mean, variance
        return ops.sum(engine.normalize_as(x, -1, *parameters, 1e-3) ** 3)

    def penalty(x):
        return ops.sum(derivative(cubes)(x) ** 2)

    second = derivative(penalty)
    found = tf.function(second)(tf.constant(x))
    monkeypatch.setattr(normalization, "has_kernels", lambda *_: False)
    assert_allclose(found, second(tf.constant(x)), rtol=1e-3, atol=1e-3)
