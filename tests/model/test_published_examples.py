"""Networks of the tutorials of snnTorch and SpikingJelly, and the same networks here:
every spike and every membrane is equal. What only gradients see, such as
surrogates, is left out.

Weights are random multiples of 1/16, and inputs are integers, so that currents have no
rounding error. Biases are larger by 1/32 or less: else
membranes were equal to thresholds often, where snnTorch's neurons do not spike.
"""

import numpy as np
import pytest
import torch
from helpers import chain
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

import keras_ratesnn as rsnn
from keras_ratesnn.layers import (
    IF,
    LIF,
    CuBaLIF,
    LeakyReadout,
    Neuron,
    ParametricLIF,
    Recurrent,
)

NORM = {"momentum": 0.9, "epsilon": 1e-5}


def flattened():
    """Layers that flatten features in the order of PyTorch, in which channels come
    first."""
    return layers.Permute((3, 1, 2)), layers.Flatten()


def convolution(filters, neurons):
    """Layers of a convolution that is normalised, its neurons and pooling."""
    convolve = layers.Conv2D(filters, 3, padding="same", use_bias=False)
    normalize = layers.BatchNormalization(**NORM)
    return convolve, normalize, neurons, layers.MaxPooling2D(2)


def leaky(beta=0.5, **kwargs):
    import snntorch

    return snntorch.Leaky(beta, init_hidden=True, **kwargs)


def delayed(decay=0.5, threshold=1.0, **kwargs):
    return LIF(decay, threshold, reset_delay=True, **kwargs)


def node(kind="IFNode", **kwargs):
    from spikingjelly.activation_based import neuron

    return getattr(neuron, kind)(**kwargs)


def integrator():
    return IF(reset="hard")


# Each returns the network of another library, with fewer channels, the layers of the
# same network here, the shape of a sample, (T, ...) if there is a frame for each step,
# and T.


def synaptic():
    """snnTorch, "Building Networks: Synaptic Conductance-based LIF Neuron"."""
    import snntorch

    def neurons():
        return snntorch.Synaptic(alpha=0.9, beta=0.85, init_hidden=True)

    def here():
        return CuBaLIF(0.85, synaptic_decay=0.9, reset_delay=True)

    theirs = nn.Sequential(nn.Linear(64, 32), neurons(), nn.Linear(32, 10), neurons())
    return theirs, [layers.Dense(32), here(), layers.Dense(10), here()], (64,), 6


def convolutional():
    """snnTorch, tutorial 6: convolutions, whose currents are pooled."""

    theirs = nn.Sequential(
        nn.Conv2d(1, 4, 5),
        nn.MaxPool2d(2),
        leaky(),
        nn.Conv2d(4, 8, 5),
        nn.MaxPool2d(2),
        leaky(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
        leaky(output=True),
    )
    ours = [
        layers.Conv2D(4, 5),
        layers.MaxPooling2D(2),
        delayed(),
        layers.Conv2D(8, 5),
        layers.MaxPooling2D(2),
        delayed(),
        *flattened(),
        layers.Dense(10),
        delayed(),
    ]
    return theirs, ours, (28, 28, 1), 4


def regression():
    """snnTorch, regression tutorial 1: each neuron has a threshold and a decay, and
    learns this; the output is a membrane."""

    random = np.random.default_rng(2)
    decays = random.uniform(0.1, 0.9, (2, 16))
    thresholds = random.uniform(0.1, 1.0, (2, 16))

    def learned(beta, threshold=1.0, **kwargs):
        beta, threshold = torch.tensor(beta).float(), torch.tensor(threshold).float()
        return leaky(beta, threshold=threshold, learn_beta=True, **kwargs)

    theirs = nn.Sequential(
        nn.Linear(1, 16),
        learned(decays[0], thresholds[0]),
        nn.Linear(16, 16),
        learned(decays[1], thresholds[1]),
        nn.Linear(16, 1),
        learned([0.8], reset_mechanism="none", output=True),
    )
    ours = [
        layers.Dense(16),
        delayed(decays[0], thresholds[0], learn_decay=True),
        layers.Dense(16),
        delayed(decays[1], thresholds[1], learn_decay=True),
        layers.Dense(1),
        LeakyReadout(0.8, learn_decay=True),
    ]
    return theirs, ours, (10, 1), 10


def recurrent():
    """snnTorch, regression tutorial 2: recurrent neurons, all to all."""
    import snntorch

    def rleaky(n):
        return snntorch.RLeaky(beta=0.9, linear_features=n, init_hidden=True)

    def back(n):
        return Recurrent(delayed(0.9), layers.Dense(n))

    theirs = nn.Sequential(nn.Linear(64, 24), rleaky(24), nn.Linear(24, 10), rleaky(10))
    return theirs, [layers.Dense(24), back(24), layers.Dense(10), back(10)], (64,), 6


def autoencoder():
    """snnTorch, "Spiking Autoencoder using Convolutional SNNs": images are membranes
    with a threshold that is out of reach."""

    def down(a, b):
        return nn.Conv2d(a, b, 3, padding=1, stride=2), nn.BatchNorm2d(b), leaky()

    def up(a, b):
        return nn.ConvTranspose2d(a, b, 3, padding=1, stride=(2, 2), output_padding=1)

    def down_here(b):
        convolve = layers.Conv2D(b, 3, strides=2)
        normalize = layers.BatchNormalization(**NORM)
        return layers.ZeroPadding2D(1), convolve, normalize, delayed()

    def up_here(b):
        convolve = layers.Conv2DTranspose(b, 3, strides=2)
        return convolve, layers.Cropping2D(((1, 0), (1, 0)))

    theirs = nn.Sequential(
        *down(1, 4),
        *down(4, 8),
        nn.Flatten(),
        nn.Linear(8 * 2 * 2, 16),
        leaky(),
        nn.Linear(16, 8 * 2 * 2),
        leaky(),
        nn.Unflatten(1, (8, 2, 2)),
        leaky(),
        up(8, 4),
        nn.BatchNorm2d(4),
        leaky(),
        up(4, 1),
        leaky(threshold=20000),
    )
    # Spikes that reach neurons are currents equal to their threshold.
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    ours = [
        *down_here(4),
        *down_here(8),
        *flattened(),
        layers.Dense(16),
        delayed(),
        layers.Dense(8 * 2 * 2),
        delayed(),
        layers.Reshape((8, 2, 2)),
        layers.Permute((2, 3, 1)),
        delayed(threshold=above),
        *up_here(4),
        layers.BatchNormalization(**NORM),
        delayed(),
        *up_here(1),
        LeakyReadout(0.5, value="last"),
    ]
    return theirs, ours, (8, 8, 1), 4


def one_layer():
    """SpikingJelly, "Single Fully Connected Layer SNN to Classify MNIST",
    lif_fc_mnist."""
    from spikingjelly.activation_based import layer

    linear = layer.Linear(28 * 28, 10, bias=False)
    theirs = nn.Sequential(layer.Flatten(), linear, node("LIFNode", tau=2.0))
    lif = LIF(0.5, decay_input=True, reset="hard")
    ours = [layers.Flatten(), layers.Dense(10, use_bias=False), lif]
    return theirs, ours, (8, 28, 28, 1), 8


def normalized():
    """SpikingJelly, "Convolutional SNN to Classify Fashion-MNIST",
    conv_fashion_mnist."""
    from spikingjelly.activation_based import layer

    theirs = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        node(),
        layer.MaxPool2d(2, 2),
        layer.Conv2d(4, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        node(),
        layer.MaxPool2d(2, 2),
        layer.Flatten(),
        layer.Linear(4 * 4 * 4, 4 * 4 * 4, bias=False),
        node(),
        layer.Linear(4 * 4 * 4, 10, bias=False),
        node(),
    )
    ours = [
        *convolution(4, integrator()),
        *convolution(4, integrator()),
        *flattened(),
        layers.Dense(64, use_bias=False),
        integrator(),
        layers.Dense(10, use_bias=False),
        integrator(),
    ]
    return theirs, ours, (16, 16, 1), 4


def parametric():
    """SpikingJelly, a network of its `parametric_lif_net`, for N-MNIST; "Classify DVS
    Gesture" has a larger one."""
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.model.parametric_lif_net import NMNISTNet

    theirs = NMNISTNet(channels=2, spiking_neuron=neuron.ParametricLIFNode)

    def here():
        return ParametricLIF(0.5, decay_input=True, reset="hard")

    ours = [
        *convolution(2, here()),
        *convolution(2, here()),
        *flattened(),
        layers.Dropout(0.5),
        layers.Dense(2048),
        here(),
        layers.Dropout(0.5),
        layers.Dense(100),
        here(),
        layers.Reshape((10, 10)),
        layers.GlobalAveragePooling1D(data_format="channels_first"),
    ]
    return theirs, ours, (4, 34, 34, 2), 4


def feedback():
    """SpikingJelly, "Recurrent Connection and Stateful Synapse": the images of
    rsnn_sequential_fmnist, column by column."""
    from spikingjelly.activation_based import layer

    container = layer.LinearRecurrentContainer(
        node(), in_features=32, out_features=32, bias=True
    )
    linear, last = layer.Linear(28, 32), layer.Linear(32, 10)
    theirs = nn.Sequential(linear, container, last, node())
    ours = [
        layers.Dense(32),
        layers.Dense(32),
        Recurrent(integrator(), layers.Dense(32, use_bias=False)),
        layers.Dense(10),
        integrator(),
    ]
    return theirs, ours, (10, 28), 10


def q_network():
    """SpikingJelly, its deep spiking Q-network, dsqn: the largest membrane of neurons
    that never spike."""
    from spikingjelly.activation_based import layer, neuron

    def neurons():
        return node("LIFNode")

    def lif():
        return LIF(0.5, decay_input=True, reset="hard")

    theirs = nn.Sequential(
        layer.Conv2d(4, 4, kernel_size=8, stride=4),
        neurons(),
        layer.Conv2d(4, 8, kernel_size=4, stride=2),
        neurons(),
        layer.Conv2d(8, 8, kernel_size=3, stride=1),
        neurons(),
        layer.Flatten(),
        layer.Linear(8, 32),
        neurons(),
        layer.Linear(32, 4),
        neuron.NonSpikingLIFNode(decode="max-mem"),
    )
    ours = [
        layers.Conv2D(4, 8, strides=4),
        lif(),
        layers.Conv2D(8, 4, strides=2),
        lif(),
        layers.Conv2D(8, 3),
        lif(),
        *flattened(),
        layers.Dense(32),
        lif(),
        layers.Dense(4),
        LeakyReadout(0.5, decay_input=True, value="max"),
    ]
    return theirs, ours, (36, 36, 4), 4


EXAMPLES = [
    synaptic,
    convolutional,
    regression,
    recurrent,
    autoencoder,
    one_layer,
    normalized,
    parametric,
    feedback,
    q_network,
]


def draw_weights(net):
    """Gives a network of another library random weights, as the head of this file
    says."""

    random = np.random.default_rng(0)
    names, modules = zip(*net.named_modules(), strict=True)
    kinds = [type(module).__name__ for module in modules]
    # What neurons without a leak add up in four steps is no multiple of 1/16 then.
    offset = 1 / 128 if {"IFNode", "BatchNorm2d"} <= set(kinds) else 1 / 32
    for name, module, following in zip(names, modules, [*kinds[1:], ""], strict=True):
        new = {}
        if isinstance(module, torch.nn.BatchNorm2d):
            size = module.num_features
            deviation = random.choice([0.5, 1.0, 2.0], size)
            new["running_mean"] = random.integers(-4, 5, size) / 16
            new["running_var"] = deviation**2 - module.eps
            new["weight"] = 2 * deviation
            new["bias"] = random.integers(0, 16, size) / 16 + offset
        elif following == "LinearRecurrentContainer":
            # Its first synapse follows at once.
            new["weight"] = random.integers(-1, 2, module.weight.shape)
            new["bias"] = random.integers(0, 2, len(module.bias))
        elif is_synapse(module):
            shape = module.weight.shape
            largest = int(np.clip(48 / np.sqrt(module.weight[0].numel()), 1, 8))
            new["weight"] = random.integers(-largest, largest + 1, shape) / 16
            if module.bias is not None:
                # Neurons get the bias of a recurrent synapse beside that of another.
                more = 0.0 if name.endswith("recurrent") else offset
                new["bias"] = random.integers(0, 16, len(module.bias)) / 16 + more
        for attribute, value in new.items():
            getattr(module, attribute).data = torch.tensor(value, dtype=torch.float32)


def is_synapse(module):

    return isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))


def weights_of(net):
    """The weights of each synapse and normalisation of a network of another library, as
    Keras has them."""

    for name, module in net.named_modules():
        arrays = {name: value.numpy() for name, value in module.state_dict().items()}
        if isinstance(module, torch.nn.BatchNorm2d):
            names = "weight", "bias", "running_mean", "running_var"
            yield [arrays[name] for name in names]
        elif is_synapse(module):
            weight = arrays.pop("weight")
            kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
            # A LinearRecurrentContainer has one synapse for its inputs and the spikes
            # that come back.
            inputs, *back = np.split(kernel, 2) if name.endswith(".rc") else [kernel]
            yield [inputs, *arrays.values()]
            yield from ([kernel] for kernel in back)


def recorded(net, frames):
    """What neurons of another library do: a list of the outputs and the membranes of
    each layer, arrays (batch, T, ...), channels last, or None."""
    from snntorch import SpikingNeuron
    from spikingjelly.activation_based.layer import VotingLayer
    from spikingjelly.activation_based.neuron import BaseNode, NonSpikingBaseNode

    results = {}

    def record(module, inputs, output):
        output = output[0] if type(output) is tuple else output
        outputs, membranes = results.setdefault(module, ([], []))
        if isinstance(module, NonSpikingBaseNode):
            membranes.extend(output)
            return
        outputs.extend(output if getattr(module, "step_mode", "s") == "m" else [output])
        if isinstance(module, SpikingNeuron):
            membranes.append(module.mem)

    neurons = SpikingNeuron, BaseNode, NonSpikingBaseNode, VotingLayer
    for module in net.modules():
        if isinstance(module, neurons):
            module.register_forward_hook(record)
        if isinstance(module, BaseNode):
            module.store_v_seq = True
        elif isinstance(module, NonSpikingBaseNode):
            module.decode = None
    net.eval()
    with torch.no_grad():
        run(net, frames)

    def array_of(steps):
        # From (time, batch, channels, ...).
        return np.moveaxis(torch.stack(steps).numpy(), (0, 1, 2), (1, 0, -1))

    arrays = []
    for module, (outputs, membranes) in results.items():
        membranes.extend(getattr(module, "v_seq", []))
        both = outputs, membranes
        arrays.append([array_of(steps) if steps else None for steps in both])
    return arrays


def run(net, frames):
    """The outputs of a network of another library: a loop over frames in snnTorch, all
    at once in SpikingJelly."""
    from spikingjelly.activation_based import functional

    if any(hasattr(module, "step_mode") for module in net.modules()):
        functional.set_step_mode(net, "m")
        return net(frames)
    return [net(frame) for frame in frames]


def batch_of(shape, timesteps):
    """A batch of three samples as the networks here get them, and as frames of other
    libraries."""

    samples = np.random.default_rng(1).integers(0, 3, (3, *shape)).astype("float32")
    frames = (
        samples
        if shape[0] == timesteps
        else np.repeat(samples[:, None], timesteps, axis=1)
    )
    return samples, torch.tensor(np.moveaxis(frames, (0, 1, -1), (1, 0, 2)))


def model_of(example, theirs, step_mode):
    """The network here, with the weights of another library's, and the names of its
    layers with membranes and of those with spikes."""
    _, ours, shape, timesteps = example()
    network = chain(*ours, shape=shape[1:] if shape[0] == timesteps else shape)
    weights, membranes, spikes = weights_of(theirs), [], []
    for layer in ours:
        if isinstance(layer, (Neuron, LeakyReadout)):
            membranes.append(layer.name)
        if isinstance(layer, Neuron):
            spikes.append(layer.name)
        synapse = layer.synapse if isinstance(layer, Recurrent) else layer
        if synapse.weights and not isinstance(synapse, (Neuron, LeakyReadout)):
            synapse.set_weights(next(weights))
    assert next(weights, None) is None
    options = {"step_mode": step_mode, "return_sequences": True}
    model = rsnn.SpikingModel(network, timesteps, "bptt", **options)
    return model, membranes, spikes


def assert_same(observed, samples, theirs):
    """Spikes are equal, membranes are to rounding."""
    close = {"rtol": 1e-5, "atol": 1e-5}
    ours = observed.predict(samples, verbose=0)
    with_membranes = [layer for layer in theirs if layer[1] is not None]
    pairs = zip(observed.membranes, with_membranes, strict=True)
    for name, (spikes, membranes) in pairs:
        actual = ours["membrane"][name]
        if name in observed.spikes:
            assert 0.01 < spikes.mean() < 0.99
            assert_array_equal(ours["spikes"][name], spikes, err_msg=name)
            layer = observed.network.get_layer(name)
            neurons = layer.neuron if isinstance(layer, Recurrent) else layer.cell
            if not neurons.reset_delay:
                # SpikingJelly has the membrane after the reset.
                actual = np.where(spikes, 0.0, actual)
        assert_allclose(actual, membranes, err_msg=name, **close)
    outputs, membranes = theirs[-1]
    if observed.membranes[-1] not in observed.spikes:
        outputs = membranes
    assert_allclose(ours["output"], outputs, **close)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_a_published_example_has_the_same_spikes_and_membranes_here(example):
    theirs, _, shape, timesteps = example()
    draw_weights(theirs)
    samples, frames = batch_of(shape, timesteps)
    layers_of_theirs = recorded(theirs, frames)
    for step_mode in ("multi", "single"):
        observed = rsnn.analysis.observed(*model_of(example, theirs, step_mode))
        assert_same(observed, samples, layers_of_theirs)
