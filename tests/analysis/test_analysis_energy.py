"""Energy: operations are those of a count by hand, spike by spike, and those of SpikingJelly's counters."""

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers

from keras_ratesnn import analysis, describe
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF, WSConv2D

T = 4


def normalized(x, filters, strides=1, size=3):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    # Statistics of an untrained network would leave it silent.
    return layers.BatchNormalization(moving_variance_initializer=keras.initializers.Constant(0.05))(x)


def vgg():
    """Convolutions, average pooling, which makes averages of spikes, and a head."""
    inputs = keras.Input((8, 8, 2))
    x = LIF()(normalized(inputs, 4))
    x = LIF()(normalized(x, 6))
    x = layers.AveragePooling2D(2)(x)
    x = LIF()(normalized(x, 8))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def resnet():
    """A stem and two blocks, the second with strides and a projection."""
    inputs = keras.Input((8, 8, 2))
    x = LIF()(normalized(inputs, 4))
    for filters, strides in ((4, 1), (6, 2)):
        y = normalized(LIF()(normalized(x, filters, strides)), filters)
        shortcut = x if strides == 1 else normalized(x, filters, strides, size=1)
        x = LIF()(layers.Add()([y, shortcut]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def model_and_images(build, samples=3):
    images = np.random.default_rng(0).uniform(-1, 1, (samples, 8, 8, 2)).astype("float32")
    return helpers.spiking(build(), T), images


def inputs_by_hand(network, images):
    """The inputs of all convolutions and dense layers at all steps, `(T, batch, ...)`, with neurons one number at a time."""
    found, values = [], {network.inputs[0].name: np.repeat(images[None], T, axis=0)}
    for layer in network.layers[1:]:
        arguments = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = [values[tensor.name] for tensor in arguments]
        if isinstance(layer, LIF):
            outputs, _, _ = helpers.naive_lif(inputs[0])
        elif isinstance(layer, layers.Add):
            outputs = inputs[0] + inputs[1]
        else:
            outputs = np.stack([to_numpy(layer(step.astype("float32"))) for step in inputs[0]])
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            found.append((layer, inputs[0], outputs))
        values[layer.output.name] = outputs
    return found


def uses_by_hand(layer, sample, output_shape):
    """How many weights the elements of a sample other than 0 meet: one output after the other."""
    if isinstance(layer, layers.Dense):
        return np.count_nonzero(sample) * layer.units
    size, stride = layer.kernel_size[0], layer.strides[0]
    padding = max((output_shape[0] - 1) * stride + size - sample.shape[0], 0)
    padded = np.pad(sample, ((padding // 2, padding - padding // 2),) * 2 + ((0, 0),))
    uses = 0
    for row, column in np.ndindex(*output_shape[:2]):
        field = padded[row * stride : row * stride + size, column * stride : column * stride + size]
        uses += np.count_nonzero(field) * layer.filters
    return uses


def count_by_hand(network, images):
    """`(multiply-adds, additions for spikes, multiply-adds without spikes)` of a sample, by the names of layers."""
    counts = {}
    for index, (layer, inputs, outputs) in enumerate(inputs_by_hand(network, images)):
        dense = np.prod(outputs.shape[2:-1], dtype=int) * np.prod(layer.kernel.shape)
        if index > 0 and set(np.unique(inputs)) <= {0.0, 1.0}:
            uses = sum(uses_by_hand(layer, sample, outputs.shape[2:]) for step in inputs for sample in step)
            counts[layer.name] = 0, uses / len(images), dense
        else:
            counts[layer.name] = dense * (T if index > 0 else 1), 0, dense
    return counts


@pytest.mark.parametrize("build", [vgg, resnet])
def test_operations_and_joules_are_those_counted_by_hand(build):
    model, images = model_and_images(build)
    found = analysis.energy(model, images)
    counts = count_by_hand(model.network, images)
    assert sorted(found.layers) == sorted(counts)
    multiply_adds, accumulates, dense = np.array([counts[name] for name in found.layers], "float64").T
    np.testing.assert_allclose(found.multiply_adds, multiply_adds, rtol=1e-9)
    np.testing.assert_allclose(found.accumulates, accumulates, rtol=0.01)
    np.testing.assert_allclose(found.multiply_adds_without_spikes, dense, rtol=1e-9)
    assert found.accumulates.sum() > 1000
    assert found.total == pytest.approx(multiply_adds.sum() * 4.6e-12 + accumulates.sum() * 0.9e-12, rel=0.01)
    assert found.total_without_spikes == pytest.approx(dense.sum() * 4.6e-12)


@pytest.mark.parametrize("build", [vgg, resnet])
def test_operations_are_those_of_the_counters_of_spikingjelly(build):
    pytest.importorskip("spikingjelly")
    import torch
    from spikingjelly.activation_based import op_counter

    model, images = model_and_images(build)
    counters = op_counter.MACCounter(extra_ignore_modules=[torch.nn.BatchNorm2d]), op_counter.SynOpCounter()
    network = in_spikingjelly(model)
    with torch.no_grad(), op_counter.DispatchCounterMode(list(counters)):
        network(torch.as_tensor(images))
    found = analysis.energy(model, images)
    multiply_adds, accumulates = (counter.get_total() / len(images) for counter in counters)
    assert found.multiply_adds.sum() == pytest.approx(multiply_adds, rel=0.01)
    assert found.accumulates.sum() == pytest.approx(accumulates, rel=0.01)


def in_spikingjelly(model):
    """The model in SpikingJelly, with the same weights: a function of images."""
    import torch
    from spikingjelly.activation_based import functional

    network = model.network
    modules = {layer.name: module_of(layer) for layer in network.layers[1:] if not isinstance(layer, layers.Add)}
    for module in modules.values():
        functional.set_step_mode(module.eval(), "m")

    def run(images):
        # What comes before the first neurons runs once.
        values, is_static = {network.inputs[0].name: images.permute(0, 3, 1, 2)[None]}, True
        for layer in network.layers[1:]:
            arguments = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[tensor.name] for tensor in arguments]
            if isinstance(layer, layers.Conv2D):
                inputs = [torch.nn.functional.pad(inputs[0], 2 * padding(layer))]
            if isinstance(layer, LIF) and is_static:
                inputs, is_static = [inputs[0].expand(T, *inputs[0].shape[1:]).contiguous()], False
            values[layer.output.name] = sum(inputs) if isinstance(layer, layers.Add) else modules[layer.name](inputs[0])

    return run


def padding(layer):
    """What a convolution with padding="same" adds before and after an axis."""
    size, outputs = layer.input.shape[1], layer.output.shape[1]
    total = max((outputs - 1) * layer.strides[0] + layer.kernel_size[0] - size, 0)
    return total // 2, total - total // 2


def module_of(source):
    """The module of a layer of these networks; other layers than strided convolutions are known to the benchmark."""
    import torch
    from spikingjelly.activation_based import layer

    from recipes.benchmark import spikingjelly_chain

    if not isinstance(source, layers.Conv2D):
        return spikingjelly_chain.module_of(source)
    *size, inputs, outputs = source.kernel.shape
    module = layer.Conv2d(inputs, outputs, size, stride=source.strides, bias=False)
    module.weight.data = torch.as_tensor(to_numpy(source.kernel.value).transpose(3, 2, 0, 1).copy())
    return module


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Conv2D(5, 3, strides=2, padding="same"), (8, 7, 4)),
        (layers.Conv2D(6, 3, groups=2), (8, 8, 4)),
        (layers.Conv2D(5, (2, 3), padding="same", dilation_rate=(1, 2)), (8, 8, 4)),
        (layers.Conv1D(5, 3, padding="causal", dilation_rate=2), (8, 4)),
        (layers.Conv1D(5, 4, strides=3, padding="same"), (8, 4)),
        (layers.Conv3D(2, 2, padding="same"), (3, 4, 5, 2)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (8, 8, 4)),
        (layers.Conv2DTranspose(3, 3, strides=2, padding="same"), (7, 6, 2)),
        (layers.Conv2DTranspose(3, (5, 2), padding="same"), (7, 6, 2)),
        (layers.Conv2DTranspose(3, 2, strides=3), (7, 6, 2)),
        (layers.Conv1DTranspose(3, 4, strides=2, padding="same"), (7, 2)),
        (layers.Conv3DTranspose(3, 3, padding="same"), (4, 3, 5, 2)),
    ],
)
def test_each_input_of_a_convolution_feeds_as_many_synapses_as_its_gradient_says(layer, shape):
    x = np.ones((1, *shape), "float32")
    layer.build(x.shape)
    layer.set_weights([np.ones_like(layer.get_weights()[0]), np.zeros_like(layer.get_weights()[1])])
    output_shape = tuple(layer(x).shape)
    (expected,) = helpers.gradient_of(lambda inputs: keras.ops.sum(layer(inputs)), [x])
    fan_out = kind_of(layer).fan_out(layer, x.shape, output_shape)
    np.testing.assert_allclose(np.broadcast_to(fan_out, shape), expected[0], atol=1e-4)


def test_the_fan_out_of_channels_first_convolutions_is_that_of_channels_last():
    first, last = (layers.Conv2D(5, 3, strides=2, padding="same", data_format=f"channels_{kind}") for kind in ("first", "last"))
    first.build((None, 4, 8, 7))
    last.build((None, 8, 7, 4))
    of_first = kind_of(first).fan_out(first, (1, 4, 8, 7), (1, 5, 4, 4))
    of_last = kind_of(last).fan_out(last, (1, 8, 7, 4), (1, 4, 4, 5))
    np.testing.assert_array_equal(of_first, np.moveaxis(of_last, -1, 0))


def test_scaled_spikes_are_added_and_averages_multiplied():
    inputs = keras.Input((6, 6, 2))
    spikes = LIF(threshold=0.3)(layers.Conv2D(4, 3)(inputs))
    scaled = WSConv2D(4, 3, name="scaled")(layers.Rescaling(2.74)(spikes))
    averages = layers.Conv2D(4, 2, name="averages")(layers.AveragePooling2D(2)(spikes))
    separable = layers.SeparableConv2D(4, 2, name="separable")(spikes)
    net = keras.Model(inputs, [layers.Flatten()(x) for x in (scaled, averages, separable)])
    found = analysis.energy(helpers.spiking(net, T), helpers.data(4, (6, 6, 2))[0])
    by_name = dict(zip(found.layers, zip(found.multiply_adds, found.accumulates, strict=True), strict=True))
    assert by_name["scaled"][0] == 0
    assert by_name["scaled"][1] > 0
    for name in ("averages", "separable"):
        assert by_name[name][0] > 0
        assert by_name[name][1] == 0


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("synapses", [lambda: layers.Dense(4), lambda: layers.EinsumDense("ab,bc->ac", (4,))])
def test_quantized_weights_are_added_for_spikes_too(synapses, mode):
    inputs = keras.Input((8,))
    model = helpers.spiking(keras.Model(inputs, synapses()(LIF()(inputs))), T)
    images = 2 * helpers.data(16, (8,))[0]
    before = analysis.energy(model, images)
    model.quantize(mode)
    after = analysis.energy(model, images)
    assert before.accumulates.sum() > 0
    np.testing.assert_array_equal(after.accumulates, before.accumulates)
    np.testing.assert_array_equal(after.multiply_adds, before.multiply_adds)


def test_other_costs_are_those_given_and_the_description_shows_the_totals():
    model, images = model_and_images(vgg)
    found = analysis.energy(model, images, analysis.Costs(multiply_add=2.0, accumulate=1.0))
    assert found.total == pytest.approx(2 * found.multiply_adds.sum() + found.accumulates.sum())
    description = describe(model, images, print_fn=None)
    default = analysis.energy(model, images)
    assert description.energy.total == pytest.approx(default.total)
    assert f"{default.total * 1e9:.3g} nJ; without spikes {default.total_without_spikes * 1e9:.3g} nJ" in str(description)
