"""Networks of the tutorials of snnTorch and SpikingJelly, and the same networks here:
every spike and every membrane is equal.

Weights are random multiples of 1/16, and inputs are integers, so that currents have no
rounding error, even in half precision. Biases are larger by 1/32 or less: else
membranes were equal to thresholds often, where snnTorch's neurons do not spike.
"""

import keras
import numpy as np
import pytest
from helpers import loss_and_gradients
from keras import layers

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
from keras_ratesnn.surrogates import FastSigmoid

NORM = {"momentum": 0.9, "epsilon": 1e-5}


def flattened():
    """Layers that flatten features in the order of PyTorch, in which channels come
    first."""
    return layers.Permute((3, 1, 2)), layers.Flatten()


# Each returns the network of another library, with fewer channels, the layers of the
# same network here, the shape of a sample, (T, ...) if there is a frame for each step,
# and T.


def synaptic():
    """snnTorch, "Building Networks: Synaptic Conductance-based LIF Neuron"."""
    import snntorch
    from torch import nn

    def neurons():
        return snntorch.Synaptic(alpha=0.9, beta=0.85, init_hidden=True)

    theirs = nn.Sequential(nn.Linear(64, 32), neurons(), nn.Linear(32, 10), neurons())
    here = {
        "decay": 0.85,
        "synaptic_decay": 0.9,
        "reset_delay": True,
        "surrogate": "atan",
    }
    ours = [layers.Dense(32), CuBaLIF(**here), layers.Dense(10), CuBaLIF(**here)]
    return theirs, ours, (64,), 6


def convolutional():
    """snnTorch, tutorial 6: convolutions, whose currents are pooled."""
    import snntorch
    from torch import nn

    def leaky(**kwargs):
        return snntorch.Leaky(
            beta=0.5,
            spike_grad=snntorch.surrogate.fast_sigmoid(slope=25),
            init_hidden=True,
            **kwargs,
        )

    def lif():
        return LIF(0.5, reset_delay=True, surrogate=FastSigmoid(slope=25))

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
        lif(),
        layers.Conv2D(8, 5),
        layers.MaxPooling2D(2),
        lif(),
        *flattened(),
        layers.Dense(10),
        lif(),
    ]
    return theirs, ours, (28, 28, 1), 4


def regression():
    """snnTorch, regression tutorial 1: each neuron has a threshold and a decay, and
    learns this; the output is a membrane."""
    import snntorch
    import torch
    from torch import nn

    random = np.random.default_rng(2)
    decays, thresholds = (
        random.uniform(0.1, 0.9, (2, 16)),
        random.uniform(0.1, 1.0, (2, 16)),
    )

    def leaky(beta, threshold=1.0, **kwargs):
        arguments = {
            "learn_beta": True,
            "spike_grad": snntorch.surrogate.fast_sigmoid(),
            "init_hidden": True,
            **kwargs,
        }
        return snntorch.Leaky(
            *(torch.tensor(value, dtype=torch.float32) for value in (beta, threshold)),
            **arguments,
        )

    def lif(layer):
        return LIF(
            decays[layer],
            thresholds[layer],
            reset_delay=True,
            surrogate="fast_sigmoid",
            learn_decay=True,
        )

    theirs = nn.Sequential(
        nn.Linear(1, 16),
        leaky(decays[0], thresholds[0]),
        nn.Linear(16, 16),
        leaky(decays[1], thresholds[1]),
        nn.Linear(16, 1),
        leaky([0.8], reset_mechanism="none", output=True),
    )
    ours = [
        layers.Dense(16),
        lif(0),
        layers.Dense(16),
        lif(1),
        layers.Dense(1),
        LeakyReadout(0.8, learn_decay=True),
    ]
    return theirs, ours, (10, 1), 10


def recurrent():
    """snnTorch, regression tutorial 2: recurrent neurons, all to all."""
    import snntorch
    from torch import nn

    def rleaky(n):
        return snntorch.RLeaky(beta=0.9, linear_features=n, init_hidden=True)

    def back(n):
        return Recurrent(LIF(0.9, reset_delay=True, surrogate="atan"), layers.Dense(n))

    theirs = nn.Sequential(nn.Linear(64, 24), rleaky(24), nn.Linear(24, 10), rleaky(10))
    return theirs, [layers.Dense(24), back(24), layers.Dense(10), back(10)], (64,), 6


def autoencoder():
    """snnTorch, "Spiking Autoencoder using Convolutional SNNs": images are membranes
    with a threshold that is out of reach."""
    import snntorch
    from torch import nn

    def leaky(threshold=1.0):
        return snntorch.Leaky(beta=0.5, threshold=threshold, init_hidden=True)

    def lif(threshold=1.0):
        return LIF(0.5, threshold, reset_delay=True, surrogate="atan")

    def down(a, b):
        return nn.Conv2d(a, b, 3, padding=1, stride=2), nn.BatchNorm2d(b), leaky()

    def down_here(b):
        return (
            layers.ZeroPadding2D(1),
            layers.Conv2D(b, 3, strides=2),
            layers.BatchNormalization(**NORM),
            lif(),
        )

    # Spikes that reach neurons are currents equal to their threshold.
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))

    def up(a, b):
        return nn.ConvTranspose2d(a, b, 3, padding=1, stride=(2, 2), output_padding=1)

    def up_here(b):
        return layers.Conv2DTranspose(b, 3, strides=2), layers.Cropping2D(
            ((1, 0), (1, 0))
        )

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
    ours = [
        *down_here(4),
        *down_here(8),
        *flattened(),
        layers.Dense(16),
        lif(),
        layers.Dense(8 * 2 * 2),
        lif(),
        layers.Reshape((8, 2, 2)),
        layers.Permute((2, 3, 1)),
        lif(above),
        *up_here(4),
        layers.BatchNormalization(**NORM),
        lif(),
        *up_here(1),
        LeakyReadout(0.5, value="last"),
    ]
    return theirs, ours, (8, 8, 1), 4


def one_layer():
    """SpikingJelly, "Single Fully Connected Layer SNN to Classify MNIST",
    lif_fc_mnist."""
    from spikingjelly.activation_based import layer, neuron, surrogate
    from torch import nn

    neurons = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan())
    theirs = nn.Sequential(
        layer.Flatten(), layer.Linear(28 * 28, 10, bias=False), neurons
    )
    lif = LIF(0.5, decay_input=True, reset="hard", detach_reset=False, surrogate="atan")
    return (
        theirs,
        [layers.Flatten(), layers.Dense(10, use_bias=False), lif],
        (8, 28, 28, 1),
        8,
    )


def normalized():
    """SpikingJelly, "Convolutional SNN to Classify Fashion-MNIST",
    conv_fashion_mnist."""
    from spikingjelly.activation_based import layer, neuron, surrogate
    from torch import nn

    def node():
        return neuron.IFNode(surrogate_function=surrogate.ATan())

    def convolution(a, b):
        return (
            layer.Conv2d(a, b, 3, padding=1, bias=False),
            layer.BatchNorm2d(b),
            node(),
            layer.MaxPool2d(2, 2),
        )

    def neurons():
        return IF(reset="hard", detach_reset=False, surrogate="atan")

    def convolution_here(b):
        convolve = layers.Conv2D(b, 3, padding="same", use_bias=False)
        return (
            convolve,
            layers.BatchNormalization(**NORM),
            neurons(),
            layers.MaxPooling2D(2),
        )

    theirs = nn.Sequential(
        *convolution(1, 4),
        *convolution(4, 4),
        layer.Flatten(),
        layer.Linear(4 * 4 * 4, 4 * 4 * 4, bias=False),
        node(),
        layer.Linear(4 * 4 * 4, 10, bias=False),
        node(),
    )
    ours = [
        *convolution_here(4),
        *convolution_here(4),
        *flattened(),
        layers.Dense(64, use_bias=False),
        neurons(),
        layers.Dense(10, use_bias=False),
        neurons(),
    ]
    return theirs, ours, (16, 16, 1), 4


def parametric():
    """SpikingJelly, a network of its `parametric_lif_net`, for N-MNIST; "Classify DVS
    Gesture" has a larger one."""
    from spikingjelly.activation_based import neuron, surrogate
    from spikingjelly.activation_based.model.parametric_lif_net import NMNISTNet

    node = {
        "spiking_neuron": neuron.ParametricLIFNode,
        "surrogate_function": surrogate.ATan(),
        "detach_reset": True,
    }
    theirs = NMNISTNet(channels=2, **node)

    def neurons():
        return ParametricLIF(0.5, decay_input=True, reset="hard", surrogate="atan")

    def convolution():
        convolve = layers.Conv2D(2, 3, padding="same", use_bias=False)
        return (
            convolve,
            layers.BatchNormalization(**NORM),
            neurons(),
            layers.MaxPooling2D(2),
        )

    ours = [
        *convolution(),
        *convolution(),
        *flattened(),
        layers.Dropout(0.5),
        layers.Dense(2048),
        neurons(),
        layers.Dropout(0.5),
        layers.Dense(100),
        neurons(),
        layers.Reshape((10, 10)),
        layers.GlobalAveragePooling1D(data_format="channels_first"),
    ]
    return theirs, ours, (4, 34, 34, 2), 4


def feedback():
    """SpikingJelly, "Recurrent Connection and Stateful Synapse": the images of
    rsnn_sequential_fmnist, column by column."""
    from spikingjelly.activation_based import layer, neuron, surrogate
    from torch import nn

    def node(**kwargs):
        return neuron.IFNode(surrogate_function=surrogate.ATan(), **kwargs)

    container = layer.LinearRecurrentContainer(
        node(detach_reset=True), in_features=32, out_features=32, bias=True
    )
    theirs = nn.Sequential(
        layer.Linear(28, 32), container, layer.Linear(32, 10), node()
    )
    ours = [
        layers.Dense(32),
        layers.Dense(32),
        Recurrent(IF(reset="hard", surrogate="atan"), layers.Dense(32, use_bias=False)),
        layers.Dense(10),
        IF(reset="hard", detach_reset=False, surrogate="atan"),
    ]
    return theirs, ours, (10, 28), 10


def q_network():
    """SpikingJelly, its deep spiking Q-network, dsqn: the largest membrane of neurons
    that never spike."""
    from spikingjelly.activation_based import layer, neuron, surrogate
    from torch import nn

    def node():
        return neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True)

    def lif():
        return LIF(0.5, decay_input=True, reset="hard", surrogate="atan")

    theirs = nn.Sequential(
        layer.Conv2d(4, 4, kernel_size=8, stride=4),
        node(),
        layer.Conv2d(4, 8, kernel_size=4, stride=2),
        node(),
        layer.Conv2d(8, 8, kernel_size=3, stride=1),
        node(),
        layer.Flatten(),
        layer.Linear(8, 32),
        node(),
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
    import torch

    random = np.random.default_rng(0)
    modules = list(net.named_modules())
    # What neurons without a leak add up in four steps is no multiple of 1/16 then.
    offset = (
        1 / 128
        if {"IFNode", "BatchNorm2d"} <= {type(module).__name__ for _, module in modules}
        else 1 / 32
    )
    for (name, module), (_, following) in zip(
        modules, [*modules[1:], ("", None)], strict=True
    ):
        new = {}
        if isinstance(module, torch.nn.BatchNorm2d):
            shape = module.num_features
            deviation = random.choice([0.5, 1.0, 2.0], shape)
            new = {
                "running_mean": random.integers(-4, 5, shape) / 16,
                "running_var": deviation**2 - module.eps,
            }
            new |= {
                "weight": 2 * deviation,
                "bias": random.integers(0, 16, shape) / 16 + offset,
            }
        elif type(following).__name__ == "LinearRecurrentContainer":
            # Its first synapse follows at once.
            new = {
                "weight": random.integers(-1, 2, module.weight.shape),
                "bias": random.integers(0, 2, len(module.bias)),
            }
        elif isinstance(
            module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        ):
            largest = int(np.clip(48 / np.sqrt(module.weight[0].numel()), 1, 8))
            new = {
                "weight": random.integers(-largest, largest + 1, module.weight.shape)
                / 16
            }
            if module.bias is not None:
                # Neurons get the bias of a recurrent synapse beside that of another.
                new["bias"] = random.integers(0, 16, len(module.bias)) / 16 + (
                    0.0 if name.endswith("recurrent") else offset
                )
        for attribute, value in new.items():
            getattr(module, attribute).data = torch.tensor(value, dtype=torch.float32)


def weights_of(net, gradients=False):
    """The weights of each synapse and normalisation of a network of another library, or
    their gradients, as Keras has them."""
    import torch

    def value(weight):
        return weight.grad if gradients else weight.detach()

    for name, module in net.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            statistics = [] if gradients else [module.running_mean, module.running_var]
            yield [
                of.numpy()
                for of in (value(module.weight), value(module.bias), *statistics)
            ]
        elif isinstance(
            module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
        ):
            kernel = (
                value(module.weight)
                .permute(*range(2, module.weight.ndim), 1, 0)
                .numpy()
            )
            bias = [] if module.bias is None else [value(module.bias).numpy()]
            # A LinearRecurrentContainer has one synapse for its inputs and the spikes
            # that come back.
            inputs, *back = np.split(kernel, 2) if name.endswith(".rc") else [kernel]
            yield [inputs, *bias]
            yield from ([kernel] for kernel in back)
        elif gradients and isinstance(
            getattr(module, "beta", None), torch.nn.Parameter
        ):
            # Here the weight is the logit.
            yield [
                (module.beta.grad * module.beta * (1 - module.beta)).detach().numpy()
            ]


def recorded(net, frames):
    """What neurons of another library do.

    Returns:
        List of the outputs and the membranes of each layer, arrays (batch, T, ...),
        channels last, or None; and whether bfloat16 holds all currents.
    """
    import torch
    from snntorch import SpikingNeuron
    from spikingjelly.activation_based.layer import VotingLayer
    from spikingjelly.activation_based.neuron import BaseNode, NonSpikingBaseNode

    found, in_bfloat16 = {}, []

    def record(module, inputs, output):
        (current,), output = inputs, output[0] if type(output) is tuple else output
        assert (current.half() == current).all(), "half precision rounds a current"
        in_bfloat16.append(bool((current.bfloat16() == current).all()))
        outputs, membranes = found.setdefault(module, ([], []))
        if isinstance(module, NonSpikingBaseNode):
            membranes.extend(output)
            return
        outputs.extend(output if getattr(module, "step_mode", "s") == "m" else [output])
        if isinstance(module, SpikingNeuron):
            membranes.append(module.mem)

    for module in net.modules():
        if isinstance(
            module, (SpikingNeuron, BaseNode, NonSpikingBaseNode, VotingLayer)
        ):
            module.register_forward_hook(record)
        if isinstance(module, BaseNode):
            module.store_v_seq = True
        elif isinstance(module, NonSpikingBaseNode):
            module.decode = None
    net.eval()
    with torch.no_grad():
        run(net, frames)
    for module, (_, membranes) in found.items():
        membranes.extend(getattr(module, "v_seq", []))
    arrays = [
        [torch.stack(steps).numpy() if steps else None for steps in of]
        for of in found.values()
    ]
    # From (time, batch, channels, ...).
    arrays = [
        [of if of is None else np.moveaxis(of, (0, 1, 2), (1, 0, -1)) for of in both]
        for both in arrays
    ]
    return arrays, all(in_bfloat16)


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
    import torch

    samples = np.random.default_rng(1).integers(0, 3, (3, *shape)).astype("float32")
    frames = (
        samples
        if shape[0] == timesteps
        else np.repeat(samples[:, None], timesteps, axis=1)
    )
    return samples, torch.tensor(np.moveaxis(frames, (0, 1, -1), (1, 0, 2)))


def model_of(example, weights, step_mode="multi"):
    """The network here, with weights of `weights_of`, and the names of its layers with
    spikes and of those with membranes."""
    _, ours, shape, timesteps = example()
    network = keras.Sequential(
        [keras.Input(shape[1:] if shape[0] == timesteps else shape), *ours]
    )
    synapses = [
        layer.synapse if isinstance(layer, Recurrent) else layer for layer in ours
    ]
    with_weights = [
        layer
        for layer in synapses
        if layer.weights and not isinstance(layer, (Neuron, LeakyReadout))
    ]
    for layer, values in zip(with_weights, weights, strict=True):
        layer.set_weights(values)
    spikes, membranes = (
        [of.name for of in ours if isinstance(of, kinds)]
        for kinds in (Neuron, (Neuron, LeakyReadout))
    )
    return (
        rsnn.SpikingModel(network, timesteps, "bptt", step_mode, return_sequences=True),
        membranes,
        spikes,
    )


def assert_same(observed, samples, theirs, rtol):
    """Spikes are equal, membranes are to rounding; `rtol` is that of readouts and
    outputs, which half precision rounds."""
    ours = observed.predict(samples, verbose=0)
    with_membranes = [layer for layer in theirs if layer[1] is not None]
    for name, (spikes, membranes) in zip(
        observed.membranes, with_membranes, strict=True
    ):
        found, tolerance = ours["membrane"][name], rtol
        if name in observed.spikes:
            assert 0.01 < spikes.mean() < 0.99
            np.testing.assert_array_equal(ours["spikes"][name], spikes, err_msg=name)
            layer, tolerance = observed.network.get_layer(name), 1e-5
            if not (
                layer.neuron if isinstance(layer, Recurrent) else layer.cell
            ).reset_delay:
                # SpikingJelly has the membrane after the reset.
                found = np.where(spikes, 0.0, found)
        np.testing.assert_allclose(
            found, membranes, rtol=tolerance, atol=tolerance, err_msg=name
        )
    (outputs, membranes), ends_in_readout = (
        theirs[-1],
        observed.membranes[-1] not in observed.spikes,
    )
    np.testing.assert_allclose(
        ours["output"], membranes if ends_in_readout else outputs, rtol=rtol, atol=rtol
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__)
def test_a_published_example_has_the_same_spikes_and_membranes_here(example, tmp_path):
    theirs, _, shape, timesteps = example()
    draw_weights(theirs)
    weights = list(weights_of(theirs))
    samples, frames = batch_of(shape, timesteps)
    found, in_bfloat16 = recorded(theirs, frames)

    def observed(step_mode):
        return rsnn.analysis.observed(*model_of(example, weights, step_mode))

    assert_same(observed("multi"), samples, found, 1e-5)
    observed("single").save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras"), samples, found, 1e-5)
    keras.config.set_dtype_policy("mixed_bfloat16" if in_bfloat16 else "mixed_float16")
    assert_same(observed("multi"), samples, found, 1e-2 if in_bfloat16 else 1e-3)


@pytest.mark.parametrize(
    "example", [regression, normalized], ids=lambda example: example.__name__
)
def test_gradients_of_a_published_example_are_those_of_its_library(example):
    """Of the mean squared error of membranes at all steps, or of firing rates."""
    import torch

    theirs, _, shape, timesteps = example()
    draw_weights(theirs)
    weights = list(weights_of(theirs))
    samples, frames = batch_of(shape, timesteps)
    outputs = run(theirs.train(), frames)
    outputs = (
        outputs.mean(0)
        if example is normalized
        else torch.stack([membrane for _, membrane in outputs], dim=1)
    )
    target = np.random.default_rng(3).uniform(0.0, 1.0, outputs.shape).astype("float32")
    torch.nn.functional.mse_loss(outputs, torch.tensor(target)).backward()
    expected = [
        gradient for of in weights_of(theirs, gradients=True) for gradient in of
    ]
    model, *_ = model_of(example, weights)
    model.return_sequences = example is regression
    _, gradients = loss_and_gradients(
        model, samples, target, keras.losses.MeanSquaredError()
    )
    largest = max(np.abs(gradient).max() for gradient in expected)
    for (path, ours), gradient in zip(gradients.items(), expected, strict=True):
        np.testing.assert_allclose(
            ours,
            gradient.reshape(ours.shape),
            rtol=1e-3,
            atol=1e-5 * largest,
            err_msg=path,
        )
