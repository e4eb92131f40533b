"""Passes over recorded graphs, on PyTorch: the same numbers from fewer operations, of
which each is a launch on a GPU.

How many operations there are is counted in `tests/gradients/costs_of_steps.json`.
"""

import keras
import numpy as np
import pytest
import torch
from counted_operations import Counter
from helpers import assert_close, compiled, data, double_precision, spiking
from keras import layers, ops
from recorded_calls import assert_equal_state, operations, pair, recording, train
from torch.multiprocessing.reductions import StorageWeakRef

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.backend.torch.graphs.recorder.graph_passes import traced


def deep(depth=4):
    """Several layers of each kind, the first of which is the same at every step."""
    x = inputs = keras.Input((6, 6, 2))
    for _ in range(depth):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = rsnn.layers.LIF()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


class Pads(layers.Layer):
    def __init__(self, around, **kwargs):
        super().__init__(**kwargs)
        self.around = tuple(around)

    def call(self, inputs):
        return torch.nn.functional.pad(inputs, self.around)


PADDINGS = {
    "sides": (0, 0, 2, 2, 1, 1),
    "differ": (0, 0, 1, 2, 1, 1),
    "channels": (1, 1, 1, 1, 1, 1),
    "cut": (0, 0, -1, -1, 1, 1),
}


def padded():
    """Paddings that a convolution with a stride can do itself, and others, or that
    something else reads."""
    inputs = keras.Input((6, 8, 2))
    spikes = rsnn.layers.LIF()(layers.BatchNormalization()(inputs))
    images = [Pads(around)(spikes) for around in PADDINGS.values()]
    images.append(layers.ZeroPadding2D(1)(spikes))
    ends = [layers.Conv2D(3, 3, strides=2)(image) for image in images]
    ends.append(layers.Activation(ops.exp)(images[-1]))
    means = [layers.GlobalAveragePooling2D()(x) for x in ends]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(means)))


def chain(*parts):
    return keras.Sequential([keras.Input((6,)), *parts, layers.Dense(3)])


class Keeps(layers.Layer):
    """Element-wise operations on small tensors that are kept, alike and not, some of
    which change in place."""

    def build(self, shape):
        self.gains = [
            self.add_weight(shape=(6,), initializer="ones", name=f"gain_{index}")
            for index in range(4)
        ]
        self.kept = [
            self.add_weight(shape=(6,), trainable=False, name=f"kept_{index}")
            for index in range(12)
        ]

    def call(self, inputs):
        gains = enumerate(self.gains)
        a, b, c, d = (gain.value * (1.0 + index) for index, gain in gains)
        pairs = (a, b), (b, a), (c, d)
        values = [one.reciprocal() * 0.5 + other for one, other in pairs]
        changed = c * 3.0
        before = changed * 2.0
        changed.add_(a)
        values += [torch.add(a, b, alpha=2), torch.add(a, b, alpha=3)]
        values += [(a**-2).clamp(0.0), (b**-2).clamp(0.1), torch.rsqrt(d)]
        values += [before, changed, b * 7.0, d * 5.0]
        for variable, value in zip(self.kept, values, strict=True):
            variable.assign(value)
        return inputs * (a + b * c * d)


def small_operations():
    return chain(layers.Dense(6), Keeps(), rsnn.layers.LIF())


@pytest.mark.parametrize(
    ("make", "policy"),
    [
        *((make, "float64") for make in (deep, padded, small_operations)),
        (deep, "float32"),
        (deep, "mixed_bfloat16"),
    ],
)
def test_the_numbers_are_those_of_eager_mode(make, policy):
    keras.config.set_dtype_policy(policy)
    tolerance = {"float64": 1e-9, "float32": 1e-4, "mixed_bfloat16": 2e-2}[policy]
    with recording():
        models = pair(make, gradient="bptt")
        eager, recorded = train(models, *data(4, models[0].network.input_shape[1:]))
    assert models[1].execution == "recorded"
    assert recorded == pytest.approx(eager, rel=tolerance)
    assert_equal_state(*models, tolerance, tolerance)


def test_a_layer_more_adds_few_operations():
    """Those on statistics run in batches: else it would add 93."""
    counts = []
    for depth in (2, 3):
        model = compiled(spiking(deep(depth)))
        x, y = data(4, (6, 6, 2))
        with recording():
            train([model], x, y)
        with Counter() as counter:
            ops.sum(model(x, training=True)).backward()
        counts.append(counter.operations)
    assert counts[1] - counts[0] <= 85


def test_nothing_is_read_by_the_host():
    with recording(least_elements=1) as graphs:
        train([compiled(spiking(deep()), jit_compile=True)], *data(4, (6, 6, 2)))
    names = [name for graph in graphs for name in operations(graph)]
    assert names
    assert not [name for name in names if "_local_scalar_dense" in name]


class Share(layers.Layer):
    """Adds sums divided by numbers, of a dtype, to the inputs."""

    def __init__(self, count_dtype, **kwargs):
        super().__init__(**kwargs)
        self.count_dtype = count_dtype

    def call(self, inputs):
        active = ops.sum(ops.cast(inputs > 0, self.count_dtype), axis=1, keepdims=True)
        widened = ops.sum(ops.cast(active, "float32"), axis=1, keepdims=True)
        shares = ops.cast(active / 6, inputs.dtype), ops.cast(widened / 3, inputs.dtype)
        return inputs + shares[0] + shares[1]


@pytest.mark.parametrize(
    ("dtype", "jit_compile"), [("bool", True), ("int64", "auto"), ("float16", "auto")]
)
def test_a_layer_that_divides_sums_of_any_dtype_trains_as_in_eager_mode(
    dtype, jit_compile
):
    def make():
        return chain(Share(dtype), layers.Dense(6), rsnn.layers.LIF())

    with recording():
        models = pair(make, jit_compile=jit_compile)
        eager, recorded = train(models, *data(4))
    assert models[1].execution != "eager"
    assert recorded == pytest.approx(eager, rel=1e-5)


@torch.library.custom_op("keras_ratesnn_tests::noted", mutates_args=())
def noted(x: torch.Tensor) -> torch.Tensor:
    NOTED.append(StorageWeakRef(x.untyped_storage()))
    return x.clone()


@torch.library.custom_op("keras_ratesnn_tests::looks", mutates_args=())
def looks(x: torch.Tensor) -> torch.Tensor:
    FREED.append(NOTED[-1].expired())
    return x.clone()


NOTED, FREED = [], []
noted.register_fake(torch.empty_like)
looks.register_fake(torch.empty_like)
noted.register_autograd(lambda ctx, gradient: gradient)
looks.register_autograd(lambda ctx, gradient: gradient)


class LooksLater(torch.autograd.Function):
    """Looks in the backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return looks(gradient)


class Saves(layers.Layer):
    """The square of what it notes needs it for its derivative, before the layers in
    front of it look."""

    def call(self, x):
        saved = LooksLater.apply(x) * 2.0
        return torch.square(saved) + noted(saved)


class OfConstant(layers.Layer):
    """Adds a convolution of a constant."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, 3, 1, 2), name="kernel")

    def call(self, inputs):
        constant = np.linspace(0.0, 1.0, 16, dtype="float32").reshape(1, 4, 4, 1)
        return inputs + ops.conv(ops.convert_to_tensor(constant), self.kernel)


def saves():
    return chain(layers.Dense(6), Saves(), rsnn.layers.LIF())


def convolves_a_constant():
    images = layers.Dense(8), layers.Reshape((2, 2, 2)), OfConstant()
    return chain(*images, rsnn.layers.LIF(), layers.Flatten())


@pytest.mark.parametrize("make", [saves, convolves_a_constant])
def test_a_backward_pass_frees_what_was_saved_after_its_last_use(make):
    """Convolutions of constants are recorded, too."""
    model = compiled(spiking(make(), gradient="bptt"))
    with recording():
        train([model], *data(4))
    assert model.execution == "recorded"
    if make is saves:
        assert FREED[-1]


def test_tangents_in_a_graph_have_memory():
    """That of a sum with a constant would have none, and compiled code reads it."""

    def tangent(x, constant):
        return engine.jvp(lambda x: [ops.sin(x + constant)], [x], [x])[1]

    nodes = traced(tangent, torch.ones(3), torch.ones(3)).graph.nodes
    targets = [str(node.target) for node in nodes]
    assert "aten.zeros.default" in targets
    assert "aten._efficientzerotensor.default" not in targets


@pytest.mark.parametrize(
    ("step_mode", "jit_compile"), [("multi", "auto"), ("single", True)]
)
def test_all_draws_have_the_numbers_of_eager_steps_and_their_seeds_are_read_at_once(
    step_mode, jit_compile
):
    def noisy():
        parts = []
        for seed in range(3):
            parts += [
                layers.Dropout(0.4, seed=seed),
                layers.Dense(8),
                rsnn.layers.LIF(),
            ]
        return chain(*parts, layers.GaussianNoise(0.1, seed=4))

    with double_precision(), recording() as graphs:
        models = pair(noisy, jit_compile=jit_compile, step_mode=step_mode)
        eager, recorded = train(models, *data(4))
    assert_close(recorded, eager, rtol=1e-9)
    assert models[1].execution != "eager"
    names = [name for graph in graphs for name in operations(graph)]
    assert not graphs or len([name for name in names if "seeds" in name]) == 1
