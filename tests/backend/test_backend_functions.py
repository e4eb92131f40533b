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


def parameters_of(function):
    parameters = inspect.signature(function).parameters.items()
    return [(name, part.kind, part.default) for name, part in parameters]


@pytest.mark.parametrize("base_class", [base.Backend, base.Replicas])
def test_a_backend_has_the_functions_and_parameters_of_the_base_class_and_no_others(
    base_class,
):
    is_backend = base_class is base.Backend
    owner = backend._backend if is_backend else backend.replicas
    # One that is not known by its name would never be called.
    assert set(base.names(type(owner))) <= set(base.names(base_class))
    for name in base.names(base_class):
        wanted = vars(base_class)[name]
        if inspect.isfunction(wanted):
            # The first parameter of a method is `self`.
            expected = parameters_of(wanted)[1:]
            assert parameters_of(getattr(owner, name)) == expected, name
        if is_backend:
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
    parts = [rsnn.layers.LIF(), *after, rsnn.layers.LIF()]
    first = layers.Conv2D(3, 3, padding="same")
    head = layers.GlobalAveragePooling2D(), layers.Dense(3)
    return keras.Sequential([keras.Input((8, 8, 2)), first, *parts, *head])


@torch_only
@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_no_image_is_copied_and_in_a_graph_a_kernel_and_its_gradient_once_each(
    gradient, step_mode
):
    from recorded_calls import recording

    inner = layers.Conv2D(5, 3, use_bias=False)
    model = spiking(network(inner), 4, gradient, step_mode=step_mode)
    batch = data(2, (8, 8, 2))

    def images_of(shapes):
        return [shape for shape in shapes if len(shape) == 4 and shape[0] in (2, 8)]

    model(batch[0], training=True)
    assert not images_of(copies_in(lambda: loss_and_gradients(model, *batch)))
    compiled(model, jit_compile=True)
    with recording(eager_calls=0) as parts:
        for _ in range(2):
            loss_and_gradients(model, *batch)
    assert len(parts) == 2
    for part in parts:
        nodes = [node for node in part.graph.nodes if "clone" in str(node.target)]
        copies = [tuple(node.meta["val"].shape) for node in nodes]
        sizes = [math.prod(shape) for shape in copies]
        assert sizes.count(5 * 3 * 3 * 3) == 1
        assert not images_of(copies)


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
    memory_format = getattr(torch, layout)
    view = weight.permute(3, 2, 0, 1)
    with backend.layout_kept():
        reordered = view.contiguous(memory_format=memory_format)
    assert reordered.is_contiguous(memory_format=memory_format)
    upstream = torch.randn(5, 4, 2, 3)
    (gradient,) = torch.autograd.grad(reordered, [weight], upstream)
    pairs = [reordered, gradient], [view, upstream.permute(2, 3, 1, 0)]
    assert_close(*pairs, rtol=0)


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

    layer = layers.Conv2D(3, 1, strides=2, padding=padding, use_bias=False)
    x, _ = data(2, (5, 5, channels))
    random = np.random.default_rng(0)
    kernel, upstream = (
        random.normal(size=(channels, 3)),
        random.normal(size=(2, 3, 3, 3)),
    )
    layer.build(x.shape)
    layer.kernel.assign(kernel[None, None])
    with backend.layout_kept(), Watching():
        outputs = layer(ops.convert_to_tensor(x))
    assert strides == ([[1, 1]] if channels == 8 else [[2, 2]])
    tensor = torch.tensor(upstream, dtype=outputs.dtype)
    (gradient,) = torch.autograd.grad(outputs, [layer.kernel.value], tensor)
    seen = x[:, ::2, ::2]
    expected = [seen @ kernel, np.einsum("bhwi,bhwo->io", seen, upstream)]
    found = [outputs, gradient[0, 0]]
    # A layer that wraps a module of PyTorch calls with other arguments.
    module = torch.nn.Conv2d(channels, 3, 1, stride=2)
    images = torch.tensor(x).permute(0, 3, 1, 2)
    with backend.layout_kept():
        found += [module(images), module(images[0])]
    expected += [module(images), module(images[0])]
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


# In single-step mode the layer itself is called on the images of a step: only on
# PyTorch is their memory another then.
STEP_MODES = ["multi", "single"] if BACKEND == "torch" else ["multi"]


@pytest.mark.parametrize("step_mode", STEP_MODES)
@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(5, 3, padding="same", strides=2, bias_initializer="ones"),
        layers.Conv2D(6, (3, 1), dilation_rate=(2, 1), groups=3),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(4, 3, padding="same"),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.MaxPooling2D(3, strides=2, padding="same"),
    ],
)
def test_layers_on_images_give_the_same_outputs_inside_a_network(layer, step_mode):
    layer = layer.__class__.from_config(layer.get_config())
    inputs = keras.Input((7, 9, 3))
    # The threshold is out of reach: what comes out is the layer's output on the image,
    # through the walk.
    silent = rsnn.layers.LIF(threshold=1e9)(layer(inputs))
    network = keras.Model(inputs, layers.Add()([layer(inputs), silent]))
    model = compiled(spiking(network, 3, step_mode=step_mode))
    x = np.random.default_rng(0).normal(size=(2, 3, 7, 9, 3)).astype("float32")
    rows = to_numpy(layer(ops.convert_to_tensor(x.reshape(6, 7, 9, 3))))
    expected = rows.reshape(2, 3, *rows.shape[1:]).mean(axis=1)
    found = [model.predict(x, verbose=0)]
    if BACKEND == "torch":
        # In the layout of its own for training.
        found.append(model(x, training=True))
    assert_close(found, [expected] * len(found), rtol=1e-4, atol=1e-5)


RANDOM = np.random.default_rng(0)
FACTORS = {
    "tensor": RANDOM.normal(size=(4, 3)).astype("float32"),
    "scalar tensor": np.float32(0.3),
    "number": -1.7,
    "other dtype": RANDOM.normal(size=(4, 3)).astype("float16"),
}
if BACKEND == "tensorflow":  # It multiplies tensors of one dtype only.
    del FACTORS["other dtype"]


@pytest.mark.parametrize("y", ["tensor", "number"])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("x", ["tensor", "number"])
def test_multiply_add_accepts_tensors_and_numbers_for_any_argument(x, factor, y):
    numbers = [FACTORS[kind] for kind in (x, factor, y)]
    tensors = [
        number if isinstance(number, float) else ops.convert_to_tensor(number)
        for number in numbers
    ]
    expected = np.float32(numbers[0]) * np.float32(numbers[1]) + np.float32(numbers[2])
    found = np.asarray(to_numpy(backend.multiply_add(*tensors)), "float32")
    tolerance = 1e-2 if factor == "other dtype" else 1e-6
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_multiply_add_has_the_derivatives_of_a_product_and_a_sum():
    x, factor, y = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")

    def squares(x, factor=-0.5, y=2.0):
        return ops.sum(ops.square(backend.multiply_add(x, factor, y)))

    found = gradient_of(squares, [x, factor, y]) + gradient_of(squares, [x])
    upstream = 2 * (x * factor + y)
    expected = [upstream * factor, upstream * x, upstream, -(2.0 - 0.5 * x)]
    assert_close(found, expected, rtol=1e-5, atol=1e-5)


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
    # JAX has float64 only in a process of its own.
    dtype, tolerance = ("float32", 1e-4) if BACKEND == "jax" else ("float64", 1e-12)
    random, filter_in_time = np.random.default_rng(0), backend.filter_in_time
    x, weights = random.normal(size=(2, 4, timesteps, 3)).astype(dtype)
    kernel = random.normal(size=(taps, 3)).astype(dtype)
    if way == "XLA":
        import tensorflow as tf

        filter_in_time = tf.function(filter_in_time, jit_compile=True)

    def weighted(x, kernel, weights):
        return ops.sum(weights * filter_in_time(x, kernel))

    found = gradient_of(weighted, [x, kernel, weights])
    # The filter is linear in each: its derivative by one number is the filter of that
    # number alone.
    of_x = [filtered(one.reshape(x.shape), kernel) for one in np.eye(x.size)]
    of_kernel = [filtered(x, one.reshape(kernel.shape)) for one in np.eye(kernel.size)]
    expected = [
        np.reshape([np.sum(weights * one) for one in of_x], x.shape),
        np.reshape([np.sum(weights * one) for one in of_kernel], kernel.shape),
        filtered(x, kernel),
    ]
    assert_close(found, expected, rtol=tolerance, atol=tolerance)


@torch_only
def test_a_filter_in_time_has_second_derivatives_and_derivatives_in_forward_mode():
    import torch

    x = torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(backend.filter_in_time, (x, kernel))
    x, kernel = x.detach(), kernel.detach()
    _, (found,) = backend.jvp(
        lambda x: [backend.filter_in_time(x, kernel)], [x], [torch.ones_like(x)]
    )
    np.testing.assert_allclose(found, filtered(np.ones(x.shape), kernel.numpy()))


def test_a_filter_in_time_adds_up_in_float32_in_half_precision():
    x, kernel = np.full((1, 9, 1), 1.0), np.full((9, 1), 1 / 256)
    x[:, 0] = 256.0
    arguments = [
        ops.cast(ops.convert_to_tensor(part), "bfloat16") for part in (x, kernel)
    ]
    found = ops.cast(backend.filter_in_time(*arguments), "float32")
    expected = 1 + np.arange(9) / 256
    np.testing.assert_allclose(to_numpy(found)[0, :, 0], expected, rtol=2**-8)


@torch_only
@pytest.mark.parametrize("around", ["network", "model"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_models_under_remat_train_like_others(gradient, step_mode, around):
    def trained(recomputed):
        keras.utils.set_random_seed(0)
        with recomputed():
            neurons = rsnn.layers.LIF(threshold=0.2)
            made = network(layers.Conv2D(4, 3), neurons, layers.AveragePooling2D(2))
        with recomputed() if around == "model" else contextlib.nullcontext():
            model = compiled(spiking(made, gradient=gradient, step_mode=step_mode))
        model.train_on_batch(*data(5, (8, 8, 2)))
        return model.get_weights()

    expected = trained(contextlib.nullcontext)
    assert_close(trained(keras.RematScope), expected, rtol=1e-5, atol=1e-6)


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

    def gradients(make, recomputed):
        keras.utils.set_random_seed(0)
        with recomputed():
            layer = make()
        model = spiking(network(layer), gradient=gradient)
        return loss_and_gradients(model, *data(5, (8, 8, 2)))[1].values()

    def dropout():
        return layers.Dropout(0.5, seed=0)

    expected = gradients(dropout, contextlib.nullcontext)
    found = gradients(dropout, keras.RematScope)
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert gradients(_Dropping, contextlib.nullcontext)
    message = r"keras\.RematScope.*dropping.*Make it outside of the scope"
    with pytest.raises(ValueError, match=message):
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
    plain = mlp()
    with keras.RematScope():
        recomputed = mlp()
    recomputed.set_weights(plain.get_weights())

    def gradients(network, gradient):
        model = spiking(network, 4, gradient, step_mode=step_mode)
        return loss_and_gradients(model, *data(8))[1].values()

    storing = rsnn.gradients.SLTT(recompute=False)
    for method, same in (("rate", "rate"), (storing, "sltt")):
        found, expected = gradients(recomputed, method), gradients(plain, same)
        assert_close(found, expected, rtol=1e-4, atol=1e-7)
    message = r"keras\.RematScope.*Make it outside of the scope"
    for method, mode in (("ottt", step_mode), ("sltt", "single")):
        with pytest.raises(ValueError, match=message):
            spiking(recomputed, 4, method, step_mode=mode)(data(8)[0], training=True)


@torch_only
@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2, 5), (6, 4, 2)])
def test_what_is_not_finite_is_found_in_its_row_also_in_parts_of_rows(
    shape, broken, in_parts
):
    import torch

    from keras_ratesnn._core.backend.torch import _totals_of_rows

    tensor = torch.ones(shape)
    tensor[(-1, *(size // 2 for size in shape[1:]))] = broken
    totals = _totals_of_rows(tensor, 3, in_parts)
    assert torch.isfinite(totals).all(dim=1).tolist() == [True, True, False]
    assert totals.shape == (3, 4 if in_parts and len(shape) == 4 else 1)


@pytest.mark.skipif(
    BACKEND != "torch", reason="other backends average gradients themselves"
)
def test_averaging_gradients_waits_for_the_device_only_where_one_is_missing_on_torch(
    monkeypatch,
):
    """Tensors on the device "meta" have no values that could be fetched."""
    import torch

    from keras_ratesnn._core.backend.torch.replicas import _average

    def averaged(device, exist, exist_elsewhere):
        weights = [torch.nn.Parameter(torch.zeros(2, device=device)) for _ in exist]
        for weight, exists in zip(weights, exist, strict=True):
            weight.grad = torch.ones(2, device=device) if exists else None
        gradients = np.repeat(exist_elsewhere, 2) * 2.0
        message = torch.tensor([*exist_elsewhere, *gradients], device=device)
        monkeypatch.setattr(
            torch.distributed, "all_reduce", lambda own: own.add_(message)
        )
        _average(weights)
        return [None if weight.grad is None else weight.grad for weight in weights]

    averaged("meta", [True, True], [True, False])
    with pytest.raises(RuntimeError, match="meta"):
        averaged("meta", [True, False], [True, True])
    first, second = averaged("cpu", [True, True], [True, False])
    assert first.tolist() == [3.0, 3.0]
    assert second.tolist() == [1.0, 1.0]
    own, others, none = averaged("cpu", [True, False, False], [False, True, False])
    assert own.tolist() == [1.0, 1.0]
    assert others.tolist() == [2.0, 2.0]
    assert none is None
