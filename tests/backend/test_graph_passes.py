"""Passes over recorded graphs, on PyTorch: the same numbers from fewer operations, of
which each is a launch on a GPU.

How many operations there are is counted in `tests/gradients/costs_of_steps.json`.
"""

import pytest
from helpers import BACKEND

if BACKEND != "torch":
    pytest.skip("only PyTorch records graphs", allow_module_level=True)

import keras
import numpy as np
import torch
from counted_operations import Counter
from helpers import assert_close, compiled, data, double_precision, spiking
from keras import layers, ops
from recorded_calls import assert_equal_state, operations, pair, recording, train
from torch.multiprocessing.reductions import StorageWeakRef

import keras_ratesnn as rsnn


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


def padded():
    """Paddings that a convolution with a stride can do itself, and others, or that
    something else reads."""
    inputs = keras.Input((6, 8, 2))
    spikes = rsnn.layers.LIF()(layers.BatchNormalization()(inputs))
    paddings = {
        "sides": (0, 0, 2, 2, 1, 1),
        "differ": (0, 0, 1, 2, 1, 1),
        "channels": (1, 1, 1, 1, 1, 1),
        "cut": (0, 0, -1, -1, 1, 1),
    }
    ends = []
    for around in paddings.values():
        ends.append(layers.Conv2D(3, 3, strides=2)(Pads(around)(spikes)))
    read = layers.ZeroPadding2D(1)(spikes)
    ends += [layers.Conv2D(3, 3, strides=2)(read), layers.Activation(ops.exp)(read)]
    return keras.Model(
        inputs,
        layers.Dense(3)(
            layers.Concatenate()([layers.GlobalAveragePooling2D()(x) for x in ends])
        ),
    )


def small_operations():
    """Element-wise operations on small tensors that are kept, alike and not, some of
    which change in place."""

    class Keeps(layers.Layer):
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
            a, b, c, d = (
                gain.value * (1.0 + index) for index, gain in enumerate(self.gains)
            )
            found = [
                one.reciprocal() * 0.5 + other
                for one, other in ((a, b), (b, a), (c, d))
            ]
            changed = c * 3.0
            before = changed * 2.0
            changed.add_(a)
            found += [
                torch.add(a, b, alpha=2),
                torch.add(a, b, alpha=3),
                (a**-2).clamp(0.0),
                (b**-2).clamp(0.1),
                torch.rsqrt(d),
            ]
            for variable, value in zip(
                self.kept, [*found, before, changed, b * 7.0, d * 5.0], strict=True
            ):
                variable.assign(value)
            return inputs * (a + b * c * d)

    inputs = keras.Input((6,))
    return keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF()(Keeps()(layers.Dense(6)(inputs))))
    )


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
    assert models[1].engine == "recorded"
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
    assert graphs
    assert not any(
        "_local_scalar_dense" in name for graph in graphs for name in operations(graph)
    )


class Share(layers.Layer):
    """Adds sums divided by numbers, of a dtype, to the inputs."""

    def __init__(self, count_dtype, **kwargs):
        super().__init__(**kwargs)
        self.count_dtype = count_dtype

    def call(self, inputs):
        active = ops.sum(ops.cast(inputs > 0, self.count_dtype), axis=1, keepdims=True)
        widened = ops.sum(ops.cast(active, "float32"), axis=1, keepdims=True)
        return (
            inputs
            + ops.cast(active / 6, inputs.dtype)
            + ops.cast(widened / 3, inputs.dtype)
        )


@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int64", "float16", "bfloat16", "float64"]
)
def test_a_layer_that_divides_sums_of_any_dtype_trains_as_in_eager_mode(
    dtype, jit_compile
):
    def make():
        inputs = keras.Input((6,))
        return keras.Model(
            inputs,
            layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(6)(Share(dtype)(inputs)))),
        )

    with recording():
        models = pair(make, jit_compile=jit_compile)
        eager, recorded = train(models, *data(4, (6,)))
    assert models[1].engine != "eager"
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


def test_a_backward_pass_frees_what_was_saved_after_its_last_use():
    class Saves(layers.Layer):
        """The square of what it notes needs it for its derivative, before the layers in
        front of it look."""

        def call(self, x):
            kept = LooksLater.apply(x) * 2.0
            return torch.square(kept) + noted(kept)

    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(Saves()(layers.Dense(6)(inputs)))
    model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(x)), gradient="bptt"))
    with recording():
        train([model], *data(4))
    assert model.engine == "recorded"
    assert FREED[-1]


def test_a_convolution_of_a_constant_is_recorded():
    constant = np.random.default_rng(0).random((1, 4, 4, 1), "float32")

    class OfConstant(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(3, 3, 1, 2), name="kernel")

        def call(self, inputs):
            return inputs + ops.conv(ops.convert_to_tensor(constant), self.kernel)

    inputs = keras.Input((2, 2, 2))
    x = rsnn.layers.LIF()(OfConstant()(rsnn.layers.LIF()(inputs)))
    model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))))
    with recording():
        train([model], *data(4, (2, 2, 2)))
    assert model.engine == "recorded"


@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_all_draws_have_the_numbers_of_eager_steps_and_their_seeds_are_read_at_once(
    step_mode, jit_compile
):
    def noisy():
        x = inputs = keras.Input((6,))
        for seed in range(3):
            x = rsnn.layers.LIF()(layers.Dense(8)(layers.Dropout(0.4, seed=seed)(x)))
        return keras.Model(
            inputs, layers.Dense(3)(layers.GaussianNoise(0.1, seed=4)(x))
        )

    with double_precision(), recording() as graphs:
        models = pair(noisy, jit_compile=jit_compile, step_mode=step_mode)
        eager, recorded = train(models, *data(4))
    assert_close(recorded, eager, rtol=1e-9)
    assert models[1].engine != "eager"
    if graphs:
        assert (
            sum("seeds" in name for graph in graphs for name in operations(graph)) == 1
        )
