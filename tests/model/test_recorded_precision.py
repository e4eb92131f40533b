"""Recorded calls in half precision, on PyTorch: weights stay as they are in inference,
and train as in eager mode."""

import keras
import pytest
from helpers import BACKEND, assert_close, compiled, data, to_numpy
from keras import layers

import keras_ratesnn as rsnn

if BACKEND != "torch":
    pytest.skip(
        "other backends compile whole functions themselves", allow_module_level=True
    )

import torch
from recorded_calls import recording

# What the policy affects is how values are read, which the methods share.
CASES = [
    ("rate", "multi", "auto", "mixed_bfloat16"),
    ("ottt", "single", "auto", "mixed_bfloat16"),
    ("bptt", "multi", True, "mixed_float16"),
]


@pytest.fixture(autouse=True)
def _in_half_precision(policy):
    keras.config.set_dtype_policy(policy)


def network():
    """Convolutions, normalisation, noise, regularisation, neurons with weights of their
    own, and a head in float32."""
    activity = keras.regularizers.L2(1e-4)
    parts = [
        layers.Conv2D(4, 3, kernel_regularizer="l2", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        rsnn.layers.LIF(),
        layers.Flatten(),
        layers.Dropout(0.2, seed=3),
        layers.Dense(8, activity_regularizer=activity),
        rsnn.layers.ParametricLIF(learn_threshold=True),
        layers.Dense(3, dtype="float32"),
    ]
    return keras.Sequential([keras.Input((6, 6, 2)), *parts])


def model_of(jit_compile, gradient="rate", step_mode="multi"):
    keras.utils.set_random_seed(0)
    model = rsnn.SpikingModel(network(), 2, gradient, step_mode)
    assert model.compute_dtype == keras.config.dtype_policy().compute_dtype != "float32"
    return compiled(
        model,
        keras.optimizers.SGD(1e-3, momentum=0.9),
        jit_compile=jit_compile,
    )


@pytest.mark.parametrize(
    ("gradient", "step_mode", "jit_compile", "policy"), CASES, ids=str
)
def test_25_steps_train_the_weights_of_eager_mode(
    gradient, step_mode, jit_compile, policy
):
    x, y = data(8, (6, 6, 2))
    with recording():
        eager, recorded = models = [
            model_of(jit, gradient, step_mode) for jit in (False, jit_compile)
        ]
        for model in models:
            for _ in range(25):
                model.train_on_batch(x, y)
    assert recorded.engine != "eager"
    assert_close(eager.variables, recorded.variables, rtol=0, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "multi"), ("bptt", "single")]
)
def test_each_weight_is_cast_once_for_all_steps_and_both_passes(gradient, step_mode):
    x, y = data(8, (6, 6, 2))
    with recording() as graphs:
        model = model_of(True, gradient, step_mode)
        for _ in range(3):
            model.train_on_batch(x, y)
    cast = torch.ops.aten._to_copy.default
    forward, backward = (
        graph.graph.find_nodes(op="call_function", target=cast) for graph in graphs
    )
    sources = [node.args[0] for node in forward if node.meta["val"].ndim > 1]
    given = [source for source in sources if source.op == "placeholder"]
    # The kernels of the convolution and of the first dense layer, and the images; the
    # head is in float32.
    assert len(given) == len(set(given)) == 3
    kernels = {tuple(variable.shape) for variable in model.trainable_variables}
    for node in backward:
        shape = tuple(node.meta["val"].shape)
        is_kernel = len(shape) > 1 and shape in kernels
        assert not (is_kernel and node.kwargs["dtype"] == torch.bfloat16)


@pytest.mark.parametrize(
    ("policy", "jit_compile"), [("mixed_bfloat16", "auto"), ("mixed_float16", True)]
)
def test_inference_leaves_weights_bit_for_bit(jit_compile):
    x, y = data(8, (6, 6, 2))
    with recording():
        model = model_of(jit_compile)
        before = [to_numpy(variable.value) for variable in model.variables]
        for _ in range(3):
            model.predict_on_batch(x)
            model.test_on_batch(x, y)
            model(x, training=False)
        model.predict(x[:5], batch_size=2, verbose=0)
    assert model.engine != "eager"
    assert_close(model.variables, before, rtol=0)
