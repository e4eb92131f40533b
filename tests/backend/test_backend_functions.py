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
    both_step_modes,
    chain,
    compiled,
    data,
    gradient_of,
    loss_and_gradients,
    mlp,
    only_on,
    rate_and_bptt,
    registered,
    spiking,
    to_numpy,
)
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import base, engine
from keras_ratesnn.layers import LIF

torch_only = only_on(
    "torch", "other backends compile, and choose the order by themselves"
)


def parameters_of(function):
    parameters = inspect.signature(function).parameters.items()
    return [(name, part.kind, part.default) for name, part in parameters]


def public_names(cls):
    """The public names of a class, without those that only a base of it has."""
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize("base_class", [base.Backend, base.Replicas])
def test_a_backend_has_the_functions_and_parameters_of_the_base_class_and_no_others(
    base_class,
):
    owner = engine if base_class is base.Backend else engine.replicas
    classes = type(owner).__mro__
    # On PyTorch there is a class with graphs, and one without.
    for cls in classes[: classes.index(base_class)]:
        # One that is not known by its name would never be called.
        assert public_names(cls) <= public_names(base_class)
        for name in public_names(cls):
            wanted = vars(base_class)[name]
            if inspect.isfunction(wanted):
                # The first parameter of a method is `self`.
                expected = parameters_of(wanted)[1:]
                function = vars(cls)[name].__get__(owner)
                assert parameters_of(function) == expected, name


def test_a_backend_without_a_compiled_loop_says_so():
    others = dict.fromkeys(base.Backend.__abstractmethods__)
    backend = type("Backend", (base.Backend,), others)()
    with pytest.raises(NotImplementedError, match="has no compiled loop"):
        backend.scan(lambda carried, step: (carried, step), [], ops.ones(3), "float32")


def calls_of(name, function):
    """The arguments of each call of an operation of PyTorch in `function()`, and what
    it returns."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation is getattr(torch.ops.aten, name).default:
                calls.append(args)
            return operation(*args, **(kwargs or {}))

    with Watch():
        result = function()
    return calls, result


def network(*after):
    parts = [LIF(), *after, LIF()]
    first = layers.Conv2D(3, 3, padding="same")
    head = layers.GlobalAveragePooling2D(), layers.Dense(3)
    return chain(first, *parts, *head, shape=(8, 8, 2))


@torch_only
@both_step_modes
@rate_and_bptt
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
    calls, _ = calls_of("clone", lambda: loss_and_gradients(model, *batch))
    assert not images_of(tuple(tensor.shape) for tensor, *_ in calls)
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
    with engine.layout_kept(), engine.no_gradient():
        for _ in range(2):
            view = kernel.permute(3, 2, 0, 1)
            assert_array_equal(to_numpy(view.contiguous()), to_numpy(view))
            kernel.add_(1.0)


@torch_only
@pytest.mark.parametrize("channels", [8, 16])
def test_a_pointwise_convolution_of_few_channels_runs_without_strides(channels):
    """With strides PyTorch's weight gradient of few channels writes outside of its
    memory on some CPUs."""
    import torch

    layer = layers.Conv2D(3, 1, strides=2, use_bias=False)
    x, _ = data(2, (5, 5, channels))
    random = np.random.default_rng(0)
    kernel = random.normal(size=(channels, 3))
    upstream = random.normal(size=(2, 3, 3, 3))
    layer.build(x.shape)
    layer.kernel.assign(kernel[None, None])
    with engine.layout_kept():
        images = ops.convert_to_tensor(x)
        calls, outputs = calls_of("convolution", lambda: layer(images))
    (call,) = calls
    assert call[3] == ([1, 1] if channels == 8 else [2, 2])
    tensor = torch.tensor(upstream, dtype=outputs.dtype)
    (gradient,) = torch.autograd.grad(outputs, [layer.kernel.value], tensor)
    seen = x[:, ::2, ::2]
    expected = [seen @ kernel, np.einsum("bhwi,bhwo->io", seen, upstream)]
    assert_close([outputs, gradient[0, 0]], expected, rtol=1e-4, atol=1e-4)


def filtered(x, kernel):
    """Filters of channels over time, tap by tap."""
    taps, y = len(kernel), np.zeros_like(x)
    for t in range(x.shape[1]):
        for i in range(max(0, taps - 1 - t), taps):
            y[:, t] += kernel[i] * x[:, t - taps + 1 + i]
    return y


@pytest.mark.parametrize(("timesteps", "taps"), [(1, 5), (7, 3), (70, 5), (64, 2)])
def test_a_filter_in_time_is_the_weighted_sum_of_earlier_inputs(timesteps, taps):
    """Steps fewer and more than taps, in one block and in several, of which the last is
    full or not."""
    # JAX has float64 only in a process of its own.
    dtype, tolerance = ("float32", 1e-4) if BACKEND == "jax" else ("float64", 1e-12)
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(2, 4, timesteps, 3)).astype(dtype)
    kernel = random.normal(size=(taps, 3)).astype(dtype)

    def weighted(x, kernel, weights):
        return ops.sum(weights * engine.filter_in_time(x, kernel))

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
    torch.autograd.gradgradcheck(engine.filter_in_time, (x, kernel))
    x, kernel = x.detach(), kernel.detach()
    _, (found,) = engine.jvp(
        lambda x: [engine.filter_in_time(x, kernel)], [x], [torch.ones_like(x)]
    )
    assert_allclose(found, filtered(np.ones(x.shape), kernel.numpy()))


def test_a_filter_in_time_adds_up_in_float32_in_half_precision():
    x, kernel = np.full((1, 9, 1), 1.0), np.full((9, 1), 1 / 256)
    x[:, 0] = 256.0
    arguments = [
        ops.cast(ops.convert_to_tensor(part), "bfloat16") for part in (x, kernel)
    ]
    found = ops.cast(engine.filter_in_time(*arguments), "float32")
    expected = 1 + np.arange(9) / 256
    assert_allclose(to_numpy(found)[0, :, 0], expected, rtol=2**-8)


@torch_only
@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "single"), ("bptt", "multi")]
)
def test_models_under_remat_train_like_others(gradient, step_mode):
    def trained(recomputed):
        keras.utils.set_random_seed(0)
        with recomputed():
            neurons = LIF(threshold=0.2)
            made = network(layers.Conv2D(4, 3), neurons, layers.AveragePooling2D(2))
            model = compiled(spiking(made, gradient=gradient, step_mode=step_mode))
        model.train_on_batch(*data(5, (8, 8, 2)))
        return model.get_weights()

    expected = trained(contextlib.nullcontext)
    assert_close(trained(keras.RematScope), expected, rtol=1e-5, atol=1e-6)


@registered
class _Dropping(layers.Layer):
    def __init__(self):
        super().__init__()
        self.dropout = layers.Dropout(0.5, seed=0)

    def call(self, inputs, training=False):
        return ops.tanh(self.dropout(inputs, training=training))


@torch_only
@rate_and_bptt
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


@only_on(
    "tensorflow",
    "the other backends find the gradients of tensors in the place of weights",
)
@both_step_modes
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
@pytest.mark.parametrize(
    ("shape", "broken", "in_parts"),
    [
        ((3,), math.nan, False),
        ((3, 4, 2, 5), math.inf, True),
        ((6, 4, 2), -math.inf, True),
    ],
)
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


@torch_only
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
    own, others, none = averaged("cpu", [True, False, False], [False, True, False])
    assert own.tolist() == [1.0, 1.0]
    assert others.tolist() == [2.0, 2.0]
    assert none is None
