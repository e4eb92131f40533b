"""Passes over recorded graphs, on PyTorch: the same numbers from fewer operations, of which each is a launch on a GPU."""

import collections

import pytest
from helpers import BACKEND

if BACKEND != "torch":
    pytest.skip("only PyTorch records graphs", allow_module_level=True)

import keras
import numpy as np
import torch
from helpers import compiled, data, spiking
from keras import layers, ops
from recorded_calls import pair, recording, train
from torch.fx.experimental.proxy_tensor import make_fx

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend.torch import fusion
from keras_ratesnn._core.backend.torch.recorder import cpu_kernels, graph_passes, padding, random, small_operations

DEPTH = 5


def deep():
    """A network with a layer more than `DEPTH` of each kind, the first of which is the same at every step."""
    x = inputs = keras.Input((6, 6, 2))
    for _ in range(DEPTH + 1):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = rsnn.layers.LIF()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def parts():
    """How often each operation is in the forward and the backward part of a training step."""
    with recording(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "LEAST_ELEMENTS", 1)
        model = compiled(spiking(deep()))
        for seed in range(2):
            model.train_on_batch(*data(4, (6, 6, 2), seed=seed))
        (graph,) = model._graphs.graphs
        return [
            collections.Counter(str(node.target).removeprefix("aten.") for node in part.__self__.graph.nodes)
            for part in (graph.forward, graph.backward)
        ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_means_over_steps_and_gradients_of_kernels_on_cpus_are_the_same_by_faster_ways(dtype):
    def function(steps, of_kernel):
        mean = (steps.to(torch.float32).sum(1) / steps.shape[1]).to(dtype)
        return mean, of_kernel.permute(1, 2, 3, 0).to(torch.float32).contiguous(), steps.transpose(2, 3).contiguous()

    given = torch.randn(2, 3, 4, 5, 6).to(dtype), torch.randn(4, 3, 3, 2).to(dtype)
    module = make_fx(function)(*given)
    graph_passes.use_means(module.graph)
    cpu_kernels.without_slow_kernels(module.graph)
    targets = [node.target for node in module.graph.nodes]
    assert targets.count(cpu_kernels.contiguous) == 2
    assert targets.count(cpu_kernels.mean_by_pooling) == (dtype != torch.float32)
    assert torch.ops.aten._to_copy.default not in targets
    module.recompile()
    for found, wanted in zip(module(*given), function(*given), strict=True):
        assert torch.equal(found, wanted)
        assert found.is_contiguous()
        assert found.dtype == wanted.dtype
        assert found.data_ptr() not in [tensor.data_ptr() for tensor in given]


def small(part):
    """The operations of a part on statistics, by name: all element-wise ones that are not on lists."""
    names = ("pow.Tensor_Scalar", "sub.Tensor", "clamp.default", "reciprocal.default", "rsqrt.default")
    return sum(part[name] for name in names)


def test_statistics_of_all_layers_are_computed_in_batches(parts):
    forward, backward = parts
    assert small(forward) == small(backward) == 0
    of_lists = [sum(count for name, count in part.items() if name.startswith("_foreach")) for part in parts]
    assert of_lists[0] <= 16
    assert of_lists[1] <= 6


def test_membranes_are_searched_for_nan_by_one_check(parts):
    forward, _ = parts
    assert forward["sum.dim_IntList"] == DEPTH + 1
    assert forward["abs.default"] == forward["all.dim"] == 1
    assert forward["logical_and.default"] == 0


def test_time_means_are_one_operation_each(parts):
    forward, _ = parts
    # The sums are those that find NaN.
    assert (forward["sum.dim_IntList"], forward["div.Tensor"]) == (DEPTH + 1, 0)
    # Each but the first layer's, and the pooling.
    assert forward["mean.dim"] >= DEPTH


def test_views_of_the_same_shape_and_permutations_that_cancel_are_left_out():
    traced = make_fx(lambda x: [x.permute(1, 0).view(3, 2).permute(1, 0) + 1])(torch.ones(2, 3))
    graph, _ = graph_passes.simplified(traced.graph, set())
    graph.eliminate_dead_code()
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [torch.ops.aten.add.Tensor]


def test_nothing_is_read_by_the_host(parts):
    assert not any("_local_scalar_dense" in name for part in parts for name in part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_of_widened_steps_is_a_mean_that_widens(dtype):
    def function(x):
        return (x.float().sum(1) / 4, x.sum(1) / 3, x.float().sum((0, 1)) / 8.0)

    x = torch.randn(2, 4, 5).to(dtype)
    graph = make_fx(function, tracing_mode="fake")(x)
    expected = graph(x)
    graph_passes.use_means(graph.graph)
    graph.recompile()
    found = graph(x)
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(found, expected, strict=True))
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(torch.ops.aten.mean.dim) == 2
    assert torch.ops.aten._to_copy.default not in targets


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64])
def test_sums_of_any_dtype_that_are_divided_have_the_numbers_and_dtypes_of_eager_mode(dtype):
    def function(x):
        return x.sum(1) / 4, x.long().sum(1) / 4, x.float().sum(1) / 4, (x.float().sum(1) / 4).to(dtype), x.half().sum(1) / 4

    x = (torch.randn(8, 4, 5, dtype=torch.float64) * 9).to(dtype)
    graph = make_fx(function, tracing_mode="fake")(x)
    expected = graph(x)
    graph_passes.use_means(graph.graph)
    graph.recompile()
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(graph(x), expected, strict=True))


@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
def test_a_layer_that_divides_a_sum_of_integers_trains_as_in_eager_mode(jit_compile):
    class Share(layers.Layer):
        def call(self, inputs):
            active = ops.sum(ops.cast(inputs > 0, "int64"), axis=1, keepdims=True)
            return inputs + ops.cast(active / 6, inputs.dtype)

    def make():
        inputs = keras.Input((6,))
        return keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(6)(Share()(inputs)))))

    with recording():
        eager, recorded = train(pair(make, jit_compile=jit_compile), *data(4, (6,)))
    assert recorded == pytest.approx(eager, rel=1e-5)


def test_operations_in_batches_give_the_same_numbers_and_heed_what_changes_in_place():
    def function(x, y, changed):
        outputs = [one.reciprocal() * 0.5 + other for one, other in ((x, y), (y, x), (x + 1.0, y))]
        before = changed * 2.0
        changed = (changed * 3.0).add_(x)
        outputs += [torch.add(x, y, alpha=2), torch.add(x, y, alpha=3), (x**-2).clamp(0.0), (y**-2).clamp(0.1), torch.rsqrt(y)]
        return [*outputs, before, changed, (x.reshape(2, 2) * y.reshape(2, 2)).sum()]

    tensors = [torch.rand(4) + 0.1 for _ in range(3)]
    graph = make_fx(function, tracing_mode="fake")(*tensors)
    expected = graph(*tensors)
    for batched in (small_operations.batched_at_end, small_operations.batched_at_beginning):
        found = torch.fx.GraphModule(graph, batched(graph.graph))
        assert all(torch.equal(one, other) for one, other in zip(found(*tensors), expected, strict=True))
        assert sum(str(node.target).startswith("aten._foreach") for node in found.graph.nodes) >= 4


def padded_convolution(around, then=lambda x: x):
    """Outputs of a convolution of padded images in channels_last order, and the gradients of its arguments."""

    def function(images, kernel, upstream):
        leaves = [images.requires_grad_(), kernel.requires_grad_()]
        padded = then(torch.nn.functional.pad(images, around))
        outputs = torch.nn.functional.conv2d(padded.permute(0, 3, 1, 2), kernel, stride=2)
        return (outputs, *torch.autograd.grad(outputs, leaves, upstream))

    images, kernel = torch.randn(2, 6, 8, 3), torch.randn(4, 3 + 2 * around[0], 3, 3)
    outputs = torch.nn.functional.conv2d(torch.nn.functional.pad(images, around).permute(0, 3, 1, 2), kernel, stride=2)
    return function, [images, kernel, torch.randn_like(outputs)]


def paddings(graph):
    return sum(node.target is torch.ops.aten.constant_pad_nd.default for node in graph.graph.nodes)


def test_convolutions_pad_and_cut_themselves():
    function, tensors = padded_convolution((0, 0, 2, 2, 1, 1))
    graph = make_fx(function, tracing_mode="fake")(*tensors)
    assert paddings(graph) == 2
    expected = graph(*tensors)
    padding.pad_in_convolutions(graph.graph)
    graph.recompile()
    assert paddings(graph) == 0
    shapes = {node.name: node.meta["val"].shape for node in graph.graph.nodes if torch.is_tensor(node.meta.get("val"))}
    for found, other in zip(graph(*tensors), expected, strict=True):
        torch.testing.assert_close(found, other)
    for node, value in zip(graph.graph.output_node().args[0], expected, strict=True):
        assert shapes[node.name] == value.shape


@pytest.mark.parametrize(
    ("around", "then"),
    [
        ((0, 0, 1, 2, 1, 1), lambda x: x),  # The sides differ.
        ((1, 1, 1, 1, 1, 1), lambda x: x),  # Channels are padded.
        ((0, 0, 1, 1, 1, 1), torch.exp),  # Something else reads the copy.
        ((0, 0, -1, -1, 1, 1), lambda x: x),  # It cuts.
    ],
    ids=["sides", "channels", "read", "cut"],
)
def test_other_paddings_stay(around, then):
    function, tensors = padded_convolution(around, then)
    graph = make_fx(function, tracing_mode="fake")(*tensors)
    before = paddings(graph)
    padding.pad_in_convolutions(graph.graph)
    assert paddings(graph) == before == 2


def test_no_padded_copy_is_made_by_the_layer_before_a_convolution_with_stride():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(3, 3, strides=2)(layers.ZeroPadding2D(1)(rsnn.layers.LIF()(inputs)))
    with recording():
        model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))))
        for seed in range(2):
            model.train_on_batch(*data(4, (8, 8, 2), seed=seed))
    (graph,) = model._graphs.graphs
    for part in (graph.forward, graph.backward):
        assert not any("constant_pad_nd" in str(node.target) for node in part.__self__.graph.nodes)


def test_a_convolution_of_a_constant_is_recorded():
    constant = np.random.default_rng(0).random((1, 4, 4, 1), "float32")

    class OfConstant(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(3, 3, 1, 2), name="kernel")

        def call(self, inputs):
            return inputs + ops.conv(ops.convert_to_tensor(constant), self.kernel)

    inputs = keras.Input((2, 2, 2))
    x = rsnn.layers.LIF()(OfConstant()(rsnn.layers.LIF()(inputs)))
    with recording():
        model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))))
        for seed in range(2):
            model.train_on_batch(*data(4, (2, 2, 2), seed=seed))
    assert len(model._graphs.graphs) == 1


@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_seeds_of_all_draws_are_read_at_once_and_the_numbers_are_those_of_eager_steps(step_mode, jit_compile):
    def noisy():
        x = inputs = keras.Input((6,))
        for seed in range(3):
            x = rsnn.layers.LIF()(layers.Dense(8)(layers.Dropout(0.4, seed=seed)(x)))
        return keras.Model(inputs, layers.Dense(3)(layers.GaussianNoise(0.1, seed=4)(x)))

    models = pair(noisy, jit_compile=jit_compile, step_mode=step_mode)
    calls = collections.Counter()
    with recording(), pytest.MonkeyPatch.context() as patch:
        read = random.read_seeds_once

        def looked_at(part):
            read(part)
            calls.update(str(node.target) for node in part.nodes)

        patch.setattr(random, "read_seeds_once", looked_at)
        eager, recorded = train(models, *data(4))
    assert recorded == pytest.approx(eager, rel=1e-5)
    # All time steps have the same numbers.
    assert calls["keras_ratesnn.draw.default"] == 4
    assert calls["keras_ratesnn.seeds_on_host.default"] == 1
