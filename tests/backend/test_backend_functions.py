"""Backend functions: the base class, the memory layout kept on PyTorch, fused
multiply-add, and rematerialisation."""

import contextlib
import inspect
import math

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    gradient_of,
    loss_and_gradients,
    mlp,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core import backend
from keras_ratesnn._core.backend import base

torch_only = pytest.mark.skipif(
    BACKEND != "torch",
    reason="other backends compile, and choose the order by themselves",
)


def parameters_of(function, skipped=0):
    return [
        (name, p.kind, p.default)
        for name, p in inspect.signature(function).parameters.items()
    ][skipped:]


@pytest.mark.parametrize("of", [base.Backend, base.Replicas])
def test_a_backend_has_the_functions_and_parameters_of_the_base_class_and_no_others(of):
    owner = backend._backend if of is base.Backend else backend.replicas
    # One that is not known by its name would never be called.
    assert set(base.names(type(owner))) <= set(base.names(of))
    for name in base.names(of):
        wanted = vars(of)[name]
        if inspect.isfunction(wanted):
            # The first parameter of a method is `self`.
            assert parameters_of(getattr(owner, name)) == parameters_of(
                wanted, skipped=1
            ), name
        if of is base.Backend:
            assert getattr(backend, name) == getattr(owner, name), name


def copies_in(function):
    """The shapes of all tensors that `function()` copies to another layout."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation is torch.ops.aten.clone.default:
                shapes.append(tuple(args[0].shape))
            return operation(*args, **(kwargs or {}))

    with Watch():
        function()
    return shapes


def network(*after):
    inputs = keras.Input((8, 8, 2))
    x = rsnn.layers.LIF()(layers.Conv2D(3, 3, padding="same")(inputs))
    for layer in after:
        x = layer(x)
    return keras.Model(
        inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(rsnn.layers.LIF()(x)))
    )


@torch_only
@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_no_image_is_copied_and_in_a_graph_a_kernel_and_its_gradient_once_each(
    gradient, step_mode
):
    from recorded_calls import recording

    timesteps = 4
    model = spiking(
        network(layers.Conv2D(5, 3, use_bias=False)),
        timesteps,
        gradient,
        step_mode=step_mode,
    )
    x, y = data(2, (8, 8, 2))
    model(x, training=True)
    copies = copies_in(lambda: loss_and_gradients(model, x, y))
    assert not [
        shape for shape in copies if len(shape) == 4 and shape[0] in (2, 2 * timesteps)
    ]
    compiled(model, jit_compile=True)
    with recording(eager_calls=0) as parts:
        for _ in range(2):
            loss_and_gradients(model, x, y)
    assert len(parts) == 2
    for part in parts:
        nodes = [node for node in part.graph.nodes if "clone" in str(node.target)]
        copies = [tuple(node.meta["val"].shape) for node in nodes]
        assert [math.prod(shape) for shape in copies].count(5 * 3 * 3 * 3) == 1
        assert not [
            shape
            for shape in copies
            if len(shape) == 4 and shape[0] in (2, 2 * timesteps)
        ]


@torch_only
def test_a_kernel_that_changes_inside_a_walk_is_read_again():
    kernel = keras.Variable(np.arange(36.0).reshape(3, 3, 2, 2)).value
    with backend.layout_kept(), backend.no_gradient():
        for _ in range(2):
            view = kernel.permute(3, 2, 0, 1)
            np.testing.assert_array_equal(to_numpy(view.contiguous()), to_numpy(view))
            kernel.add_(1.0)


@torch_only
@pytest.mark.parametrize("layout", ["channels_last", "contiguous_format"])
def test_a_kernel_in_another_order_has_its_values_and_passes_its_derivative_on(layout):
    import torch

    weight = keras.Variable(np.random.default_rng(0).normal(size=(2, 3, 4, 5))).value
    upstream = torch.randn(5, 4, 2, 3)
    view = weight.permute(3, 2, 0, 1)
    with backend.layout_kept():
        reordered = view.contiguous(memory_format=getattr(torch, layout))
    assert reordered.is_contiguous(memory_format=getattr(torch, layout))
    np.testing.assert_array_equal(to_numpy(reordered), to_numpy(view))
    (gradient,) = torch.autograd.grad(reordered, [weight], upstream)
    np.testing.assert_array_equal(
        to_numpy(gradient), to_numpy(upstream.permute(2, 3, 1, 0))
    )


@torch_only
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("channels", [8, 16])
def test_a_pointwise_convolution_of_few_channels_runs_without_strides(
    channels, padding
):
    """With strides PyTorch's weight gradient of few channels writes outside of its
    memory on some CPUs."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    strides = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.convolution.default:
                strides.append(args[3])
            return function(*args, **(kwargs or {}))

    layer = layers.Conv2D(3, 1, strides=2, padding=padding, data_format="channels_last")
    x, _ = data(2, (5, 5, channels))
    kernel, upstream = (
        np.random.default_rng(0).normal(size=(channels, 3)),
        np.random.default_rng(1).normal(size=(2, 3, 3, 3)),
    )
    layer.build(x.shape)
    layer.set_weights([kernel[None, None], np.zeros(3)])
    with backend.layout_kept(), Watching():
        outputs = layer(ops.convert_to_tensor(x))
    assert strides == ([[1, 1]] if channels == 8 else [[2, 2]])
    np.testing.assert_allclose(
        to_numpy(outputs), x[:, ::2, ::2] @ kernel, rtol=1e-5, atol=1e-5
    )
    (gradient,) = torch.autograd.grad(
        outputs, [layer.kernel.value], torch.tensor(upstream, dtype=outputs.dtype)
    )
    # A layer that wraps a module of PyTorch calls with other arguments.
    module = torch.nn.Conv2d(channels, 3, 1, stride=2)
    images = torch.tensor(x).permute(0, 3, 1, 2)
    with backend.layout_kept():
        wrapped, of_one = module(images), module(images[0])
    for found, expected in ((wrapped, module(images)), (of_one, module(images[0]))):
        np.testing.assert_allclose(
            to_numpy(found), to_numpy(expected), rtol=1e-5, atol=1e-5
        )
    expected = np.einsum("bhwi,bhwo->io", x[:, ::2, ::2], upstream)
    np.testing.assert_allclose(to_numpy(gradient)[0, 0], expected, rtol=1e-4, atol=1e-4)


# In single-step mode the layer itself is called on the images of a step: only on
# PyTorch is their memory another then.
@pytest.mark.parametrize(
    "step_mode", ["multi", "single"] if BACKEND == "torch" else ["multi"]
)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(5, 3, padding="same", strides=2),
        lambda: layers.Conv2D(5, 3, padding="same", bias_initializer="ones"),
        lambda: layers.Conv2D(6, (3, 1), dilation_rate=(2, 1), groups=3),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.SeparableConv2D(4, 3, padding="same"),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
        lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    ],
)
def test_layers_on_images_give_the_same_outputs_inside_a_network(layer, step_mode):
    inputs = keras.Input((7, 9, 3))
    layer = layer()
    # The threshold is out of reach: what comes out is the layer's output on the image,
    # through the walk.
    outputs = layers.Add()(
        [layer(inputs), rsnn.layers.LIF(threshold=1e9)(layer(inputs))]
    )
    model = compiled(spiking(keras.Model(inputs, outputs), 3, step_mode=step_mode))
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 9, 3)).astype("float32")
    rows = to_numpy(layer(ops.convert_to_tensor(x.reshape(6, 7, 9, 3))))
    expected = rows.reshape(2, 3, *rows.shape[1:]).mean(axis=1)
    if BACKEND == "torch":
        # In the layout of its own for training.
        np.testing.assert_allclose(
            to_numpy(model(x, training=True)), expected, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
    )


FACTORS = ["tensor", "scalar tensor", "number"]
if BACKEND != "tensorflow":  # It multiplies tensors of one dtype only.
    FACTORS.append("other dtype")


@pytest.mark.parametrize("y", ["tensor", "number"])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("x", ["tensor", "number"])
def test_multiply_add_accepts_tensors_and_numbers_for_any_argument(x, factor, y):
    random = np.random.default_rng(0)
    arrays = {
        "tensor": random.normal(size=(4, 3)).astype("float32"),
        "scalar tensor": np.float32(0.3),
        "other dtype": random.normal(size=(4, 3)).astype("float16"),
        "number": -1.7,
    }
    values = [
        arrays[kind] if kind == "number" else ops.convert_to_tensor(arrays[kind])
        for kind in (x, factor, y)
    ]
    expected = np.float32(arrays[x]) * np.float32(arrays[factor]) + np.float32(
        arrays[y]
    )
    tolerance = 1e-2 if factor == "other dtype" else 1e-6
    result = backend.multiply_add(*values)
    np.testing.assert_allclose(
        np.asarray(to_numpy(result), "float32"),
        expected,
        rtol=tolerance,
        atol=tolerance,
    )


def test_multiply_add_has_the_derivatives_of_a_product_and_a_sum():
    x, factor, y = (
        np.random.default_rng(seed).normal(size=(4, 3)).astype("float32")
        for seed in range(3)
    )
    of_tensors = gradient_of(
        lambda *values: ops.sum(ops.square(backend.multiply_add(*values))),
        [x, factor, y],
    )
    upstream = 2 * (x * factor + y)
    assert_close(
        of_tensors, (upstream * factor, upstream * x, upstream), rtol=1e-5, atol=1e-5
    )
    (of_numbers,) = gradient_of(
        lambda value: ops.sum(ops.square(backend.multiply_add(value, -0.5, 2.0))), [x]
    )
    np.testing.assert_allclose(of_numbers, -(2.0 - 0.5 * x), rtol=1e-5, atol=1e-5)


def filtered(x, kernel):
    """Filters of channels over time, tap by tap."""
    taps, y = len(kernel), np.zeros_like(x)
    for t in range(x.shape[1]):
        for i in range(max(0, taps - 1 - t), taps):
            y[:, t] += kernel[i] * x[:, t - taps + 1 + i]
    return y


@pytest.mark.parametrize(
    "way", ["plain", *(["XLA"] if BACKEND == "tensorflow" else [])]
)
@pytest.mark.parametrize(
    ("timesteps", "taps"), [(1, 5), (3, 5), (4, 3), (7, 3), (11, 3), (25, 5), (9, 2)]
)
def test_a_filter_in_time_is_the_weighted_sum_of_earlier_inputs(timesteps, taps, way):
    """Steps fewer and more than taps, in one block and in several, of which the last is
    full or not."""
    dtype = (
        "float32" if BACKEND == "jax" else "float64"
    )  # JAX has the other one only in a process of its own.
    rng, tolerance = np.random.default_rng(0), 1e-4 if BACKEND == "jax" else 1e-12
    x, weights = rng.normal(size=(2, 4, timesteps, 3)).astype(dtype)
    kernel = rng.normal(size=(taps, 3)).astype(dtype)

    def found(x, kernel):
        return backend.filter_in_time(x, kernel)

    if way == "XLA":
        import tensorflow as tf

        found = tf.function(found, jit_compile=True)
    of_x, of_kernel, result = gradient_of(
        lambda x, kernel, weights: ops.sum(weights * found(x, kernel)),
        [x, kernel, weights],
    )
    np.testing.assert_allclose(
        result, filtered(x, kernel), rtol=tolerance, atol=tolerance
    )
    # The filter is linear in each: its derivative by one number is the filter of that
    # number alone.
    expected = [
        np.sum(weights * filtered(x, one.reshape(kernel.shape)))
        for one in np.eye(kernel.size)
    ]
    np.testing.assert_allclose(
        of_kernel.ravel(), expected, rtol=tolerance, atol=tolerance
    )
    expected = [
        np.sum(weights * filtered(one.reshape(x.shape), kernel))
        for one in np.eye(x.size)
    ]
    np.testing.assert_allclose(of_x.ravel(), expected, rtol=tolerance, atol=tolerance)


@torch_only
def test_a_filter_in_time_has_second_derivatives_and_derivatives_in_forward_mode():
    import torch

    x, kernel = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in [(2, 5, 2), (3, 2)]
    )
    torch.autograd.gradgradcheck(backend.filter_in_time, (x, kernel))
    _, (found,) = backend.jvp(
        lambda x: [backend.filter_in_time(x, kernel.detach())],
        [x.detach()],
        [torch.ones_like(x)],
    )
    np.testing.assert_allclose(
        found, filtered(np.ones_like(x.detach()), kernel.detach().numpy())
    )


def test_a_filter_in_time_adds_up_in_float32_in_half_precision():
    x, kernel = np.full((1, 9, 1), 1.0), np.full((9, 1), 1 / 256)
    x[:, 0] = 256.0
    found = backend.filter_in_time(
        *(ops.cast(ops.convert_to_tensor(value), "bfloat16") for value in (x, kernel))
    )
    np.testing.assert_allclose(
        to_numpy(ops.cast(found, "float32"))[0, :, 0],
        1 + np.arange(9) / 256,
        rtol=2**-8,
    )


# Recomputation. On JAX and TensorFlow Keras cannot recompute what takes a `training`
# argument, in any model.
@torch_only
@pytest.mark.parametrize("around", ["network", "model"])
@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("bptt", "multi"), ("bptt", "single")],
)
def test_models_under_remat_train_like_others(gradient, step_mode, around):
    def trained(recomputed):
        keras.utils.set_random_seed(0)
        with recomputed():
            made = network(
                layers.Conv2D(4, 3),
                rsnn.layers.LIF(threshold=0.2),
                layers.AveragePooling2D(2),
            )
        with recomputed() if around == "model" else contextlib.nullcontext():
            model = compiled(spiking(made, gradient=gradient, step_mode=step_mode))
        model.train_on_batch(*data(5, (8, 8, 2)))
        return model.get_weights()

    assert_close(
        trained(keras.RematScope), trained(contextlib.nullcontext), rtol=1e-5, atol=1e-6
    )


@keras.saving.register_keras_serializable(package="tests")
class _Dropping(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dropout = layers.Dropout(0.5, seed=0)

    def call(self, inputs, training=False):
        return ops.tanh(self.dropout(inputs, training=training))


@torch_only
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_layers_under_remat_that_draw_random_numbers_have_their_gradient_or_are_refused(
    gradient,
):
    """Keras repeats them with other numbers, see docs/upstream.md."""

    def gradients(made, recomputed):
        keras.utils.set_random_seed(0)
        with recomputed():
            layer = made()
        model = spiking(network(layer), gradient=gradient)
        return loss_and_gradients(model, *data(5, (8, 8, 2)))[1].values()

    def dropout():
        return layers.Dropout(0.5, seed=0)

    assert_close(
        gradients(dropout, keras.RematScope),
        gradients(dropout, contextlib.nullcontext),
        rtol=1e-5,
        atol=1e-6,
    )
    assert gradients(_Dropping, contextlib.nullcontext)
    with pytest.raises(
        ValueError, match=r"keras\.RematScope.*dropping.*Make it outside of the scope"
    ):
        gradients(_Dropping, keras.RematScope)


@pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="the other backends find the gradients of tensors in the place of weights",
)
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_layers_that_tensorflow_recomputes_have_their_gradients_or_are_refused(
    step_mode,
):
    """Dense layers take no `training` argument."""
    x, y = data(8)
    plain = mlp()
    with keras.RematScope():
        recomputed = mlp()
    recomputed.set_weights(plain.get_weights())
    (_, expected), (_, found) = (
        loss_and_gradients(spiking(made, 4, step_mode=step_mode), x, y)
        for made in (plain, recomputed)
    )
    assert_close(found.values(), expected.values(), rtol=1e-4, atol=1e-7)
    with pytest.raises(
        ValueError, match=r"keras\.RematScope.*Make it outside of the scope"
    ):
        spiking(recomputed, 4, "ottt", step_mode=step_mode)(x, training=True)
    with pytest.raises(ValueError, match=r"keras\.RematScope"):
        spiking(recomputed, 4, "sltt", step_mode="single")(x, training=True)
    (_, kept) = loss_and_gradients(
        spiking(
            recomputed, 4, rsnn.gradients.SLTT(recompute=False), step_mode=step_mode
        ),
        x,
        y,
    )
    (_, expected) = loss_and_gradients(
        spiking(plain, 4, "sltt", step_mode=step_mode), x, y
    )
    assert_close(kept.values(), expected.values(), rtol=1e-4, atol=1e-7)


@torch_only
def test_recomputed_neurons_have_the_same_gradient():
    with keras.RematScope():
        neuron = rsnn.layers.LIF()
    x, _ = data(5, (6,))
    ours, plain = (
        gradient_of(lambda x, layer=layer: ops.sum(layer(x) * x), [x])
        for layer in (neuron, rsnn.layers.LIF())
    )
    np.testing.assert_allclose(ours, plain)


@torch_only
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2, 5), (6, 4, 2)])
def test_what_is_not_finite_is_found_in_its_row_also_in_parts_of_rows(
    shape, broken, in_parts
):
    import torch

    from keras_ratesnn._core.backend import torch as of_torch

    tensor = torch.ones(shape)
    tensor[(len(tensor) - 1, *(size // 2 for size in shape[1:]))] = broken
    totals = of_torch._totals_of_rows(tensor, 3, in_parts)
    assert torch.isfinite(totals).all(dim=1).tolist() == [True, True, False]
    assert totals.shape == (3, shape[1] if in_parts and shape == (3, 4, 2, 5) else 1)
