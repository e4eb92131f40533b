"""Energy: operations are those of the counters of SpikingJelly, in which the benchmark
builds the same networks."""

import pytest
from helpers import to_numpy
from keras import layers

from keras_ratesnn import analysis
from keras_ratesnn.layers import LIF
from tests.analysis.test_analysis_energy import T, model_and_images, resnet, vgg


@pytest.mark.parametrize("build", [vgg, resnet])
def test_operations_are_those_of_the_counters_of_spikingjelly(build):
    pytest.importorskip("spikingjelly")
    import torch
    from spikingjelly.activation_based import op_counter

    model, images = model_and_images(build)
    counters = (
        op_counter.MACCounter(extra_ignore_modules=[torch.nn.BatchNorm2d]),
        op_counter.SynOpCounter(),
    )
    network = in_spikingjelly(model)
    with torch.no_grad(), op_counter.DispatchCounterMode(list(counters)):
        network(torch.as_tensor(images))
    found = analysis.energy(model, images)
    multiply_adds, accumulates = (
        counter.get_total() / len(images) for counter in counters
    )
    assert found.multiply_adds.sum() == pytest.approx(multiply_adds, rel=0.01)
    assert found.accumulates.sum() == pytest.approx(accumulates, rel=0.01)


def in_spikingjelly(model):
    """The model in SpikingJelly, with the same weights: a function of images."""
    import torch
    from spikingjelly.activation_based import functional

    network = model.network
    modules = {
        layer.name: module_of(layer)
        for layer in network.layers[1:]
        if not isinstance(layer, layers.Add)
    }
    for module in modules.values():
        functional.set_step_mode(module.eval(), "m")

    def run(images):
        # What comes before the first neurons runs once.
        values, is_static = (
            {network.inputs[0].name: images.permute(0, 3, 1, 2)[None]},
            True,
        )
        for layer in network.layers[1:]:
            arguments = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[tensor.name] for tensor in arguments]
            if isinstance(layer, layers.Conv2D):
                inputs = [torch.nn.functional.pad(inputs[0], 2 * padding(layer))]
            if isinstance(layer, LIF) and is_static:
                inputs, is_static = (
                    [inputs[0].expand(T, *inputs[0].shape[1:]).contiguous()],
                    False,
                )
            values[layer.output.name] = (
                sum(inputs)
                if isinstance(layer, layers.Add)
                else modules[layer.name](inputs[0])
            )

    return run


def padding(layer):
    """What a convolution with padding="same" adds before and after an axis."""
    size, outputs = layer.input.shape[1], layer.output.shape[1]
    total = max((outputs - 1) * layer.strides[0] + layer.kernel_size[0] - size, 0)
    return total // 2, total - total // 2


def module_of(source):
    """The module of a layer of these networks; other layers than strided convolutions
    are known to the benchmark."""
    import torch
    from spikingjelly.activation_based import layer

    from recipes.benchmark import translated

    if not isinstance(source, layers.Conv2D):
        return translated.module_of(source)
    *size, inputs, outputs = source.kernel.shape
    module = layer.Conv2d(inputs, outputs, size, stride=source.strides, bias=False)
    module.weight.data = torch.as_tensor(
        to_numpy(source.kernel.value).transpose(3, 2, 0, 1).copy()
    )
    return module
