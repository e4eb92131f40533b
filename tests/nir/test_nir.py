"""NIR files: other libraries read ours with our spikes, we read theirs with their
spikes, and what went out comes in again.

Where another program runs the network, weights and inputs are `dyadic`: membranes are
exact in float32, so that spikes are equal at every step, also those of membranes that
are exactly at the threshold.
"""

import functools
import sys

import h5py
import helpers
import keras
import nir
import numpy as np
import pytest
from drawn_networks import give_weights
from helpers import BACKEND, assert_close, dyadic, spiking, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import deploy
from keras_ratesnn._lowered.neurons import LAYERS
from keras_ratesnn.layers import IF, LIF, CuBaLIF, LeakyReadout, ParametricLIF

own = rsnn.layers
T = 6
STEP = 1e-4


def with_dyadic_weights(network):
    for seed, weight in enumerate(network.weights):
        weight.assign(dyadic(weight.shape, -1.0, 1.0, seed))
    return network


def convolutional(neuron):
    """All that other libraries read, too: an odd zero at the end, a kernel without
    bias, pooling, flattening, a branch."""
    inputs = keras.Input((8, 6, 2))
    x = neuron()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    y = neuron()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Add()([x, y])))
    x = neuron()(layers.Dense(6)(x))
    return with_dyadic_weights(keras.Model(inputs, layers.Dense(3)(x)))


def exported(network, path, **kwargs):
    deploy.export_nir(network, path, **kwargs)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "network.nir"


def steps_of(network, x):
    """The outputs at every step, `(batch, T, ...)`."""
    model = network
    if not isinstance(network, rsnn.SpikingModel):
        model = spiking(network, x.shape[1], "bptt")
    model.return_sequences = True
    # On JAX one compiled program takes less time than many.
    return model.predict(x, verbose=0) if BACKEND == "jax" else to_numpy(model(x))


def steps_of_torch(module, x):
    """The outputs of a module that NIRTorch made, for images `(batch, T, height, width,
    channels)`."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for step in np.moveaxis(x, (1, -1), (0, 2)):
            output, state = module(torch.tensor(np.ascontiguousarray(step)), state)
            outputs.append(output.numpy())
    return np.stack(outputs, axis=1)


# Our files in other programs.
def snntorch(path):
    from snntorch.import_nir import import_from_nir

    return import_from_nir(nir.read(path))


def spikingjelly(path, soft=False):
    """The network of a file in SpikingJelly, which reads every reset as a hard one,
    with a soft reset if wanted."""
    from spikingjelly.activation_based import neuron, nir_exchange

    module = nir_exchange.import_from_nir(path)
    for part in module.modules():
        if soft and isinstance(part, neuron.BaseNode):
            part.v_reset = None
    return module


def soft_spikingjelly(path):
    return spikingjelly(path, soft=True)


def hard_lif():
    return LIF(0.5, reset="hard")


def hard_current():
    return CuBaLIF(0.5, synaptic_decay=0.25, reset="hard")


@pytest.mark.parametrize(
    ("read", "neuron"),
    [
        (snntorch, hard_lif),
        (snntorch, hard_current),
        (spikingjelly, hard_lif),
        (spikingjelly, hard_current),
        (spikingjelly, lambda: LIF(0.5, 0.5, reset="hard", decay_input=True)),
        (soft_spikingjelly, lambda: LIF(0.5)),
    ],
)
def test_other_programs_read_our_file_with_our_spikes(read, neuron, file):
    network = convolutional(neuron)
    x = dyadic((3, T, 8, 6, 2)).astype("float32")
    ours = steps_of(network, x)
    assert np.unique(ours).size > 15
    assert_array_equal(steps_of_torch(read(exported(network, file)), x), ours)


HARD = {"reset": "hard", "name": "n"}


@pytest.mark.parametrize(
    ("neurons", "said"),
    [
        (LIF(0.5, 0.5, decay_input=True, **HARD), False),
        (LIF(0.5, decay_input=True, name="n"), True),
        (IF(name="n"), True),
    ],
)
def test_an_export_says_which_neurons_some_programs_run_in_another_way(
    neurons, said, file, capsys
):
    exported(chain((3,), layers.Dense(2), neurons, layers.Dense(2)), file)
    line = "Some programs run n in another way: see Train for NIR in docs/deploy.md.\n"
    assert capsys.readouterr().out == (line if said else "")


def loop(graph, x, soft=False):
    """NIR's equations by Euler's method, node by node along a chain, in float64, from
    where membranes rest.

    Args:
        graph: A `nir.NIRGraph` without branches, of affine layers, neurons, readouts.
        x: Array `(batch, T, features)`.
        soft: Boolean, whether a spike subtracts the threshold. Defaults to `False`.
    """
    following, name = dict(graph.edges), "input"
    x = np.asarray(x, "float64")
    while (name := following[name]) != "output":
        node = graph.nodes[name]
        if isinstance(node, (nir.Affine, nir.Linear)):
            x = x @ node.weight.astype("float64").T + getattr(node, "bias", 0.0)
            continue
        current, outputs = np.zeros_like(x[:, 0]), []
        v = current + getattr(node, "v_leak", 0.0)
        for step in np.moveaxis(x, 1, 0):
            if isinstance(node, nir.CubaLIF):
                current = current + STEP / node.tau_syn * (-current + node.w_in * step)
                v = v + STEP / node.tau_mem * (node.v_leak - v + node.r * current)
            elif isinstance(node, (nir.LIF, nir.LI)):
                v = v + STEP / node.tau * (node.v_leak - v + node.r * step)
            else:
                v = v + STEP * node.r * step
            # Rounding of τ is not what this is about.
            v = np.round(v, 9)
            if isinstance(node, nir.LI):
                outputs.append(v)
                continue
            spike = v > node.v_threshold
            after = v - np.round(node.v_threshold, 6) if soft else node.v_reset
            v = np.where(spike, after, v)
            outputs.append(spike)
        x = np.stack(outputs, axis=1).astype("float64")
    return x


UNITS = 8
DECAYS = np.resize([0.5, 0.25], UNITS)
THRESHOLDS = np.resize([1.0, 0.75, 1.25], UNITS)
SCALED = {"synaptic_decay": 0.5, "reset": "hard", "decay_input": True}
PER_NEURON = {"synaptic_decay": 0.5, "reset": "hard", "v_reset": np.full(UNITS, -0.5)}
NEURONS = {
    **{
        layer.__name__: functools.partial(layer, reset="hard")
        for cell, layer in LAYERS.items()
        if cell.targets.nir
    },
    "resting": lambda: IF(1.25, reset="hard", v_reset=-0.25),
    "IF soft": lambda: IF(),
    "resting with a leak": lambda: LIF(0.5, 0.75, reset="hard", v_reset=0.25),
    "scaled input": lambda: LIF(0.5, 0.5, reset="hard", decay_input=True),
    "scaled current": lambda: CuBaLIF(0.25, 0.75, **SCALED),
    "CuBaLIF soft": lambda: CuBaLIF(0.25, synaptic_decay=0.5),
    "of each neuron": lambda: CuBaLIF(DECAYS, THRESHOLDS, **PER_NEURON),
    "learned decay": lambda: ParametricLIF(0.5, reset="hard", per_channel=True),
    "learned threshold": lambda: LIF(0.5, 1.5, reset="hard", learn_threshold=True),
    "stabilised": lambda: LIF(0.5, 1.5, reset="hard", threshold_stabilizer=True),
}
# Decays of 1/2 and 1/4, and a threshold of 5/4.
LEARNED = {
    "decay_logit": [0.0, -np.log(3.0)],
    "log_threshold": np.log(1.25),
    "running_threshold": 1.25,
}


@pytest.mark.backends(3)
@pytest.mark.parametrize("name", NEURONS)
def test_spikes_are_those_of_the_equations_of_nir(name, file):
    synapses = layers.Dense(UNITS, use_bias=False), layers.Dense(UNITS)
    chain = [keras.Input((5,)), synapses[0], NEURONS[name](), synapses[1]]
    network = keras.Sequential([*chain, NEURONS[name]()])
    with_dyadic_weights(keras.Sequential(synapses))
    for weight in network.weights:
        if weight.name in LEARNED:
            weight.assign(np.resize(LEARNED[weight.name], weight.shape))
    x = dyadic((4, T, 5))
    spikes = steps_of(network, x)
    assert 0.05 < spikes.mean() < 0.95
    expected = loop(nir.read(exported(network, file)), x, soft="soft" in name)
    # A sigmoid or an exponential is rounded: a membrane at its threshold may be on
    # either side.
    assert np.mean(expected != spikes) <= (0.02 if "learned" in name else 0.0)


# Files of other programs.
def snntorch_neurons(kind, **kwargs):
    import snntorch
    import torch

    values = {"beta": 0.5, "threshold": 1.0}
    if "Synaptic" in kind:
        values["alpha"] = 0.25
    arrays = {name: torch.full((UNITS,), value) for name, value in values.items()}
    return getattr(snntorch, kind)(**arrays, init_hidden=True, **kwargs)


PLAIN = ("Leaky", "Synaptic")


@pytest.mark.filterwarnings(
    "ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("kinds", "mechanism"),
    [
        (PLAIN, "zero"),
        (PLAIN, "subtract"),
        (("RLeaky",), "subtract"),
        (("RSynaptic",), "zero"),
    ],
)
def test_spikes_of_a_file_of_snntorch_are_its_spikes(kinds, mechanism, file):
    """Resets of recurrent neurons are always delayed, and this is asked for."""
    import torch
    from snntorch.export_nir import export_to_nir

    parts = []
    for kind in kinds:
        settings = {"reset_mechanism": mechanism, "reset_delay": True}
        if kind not in PLAIN:
            settings = {"reset_mechanism": mechanism, "linear_features": UNITS}
        parts.append(torch.nn.Linear(UNITS, UNITS))
        parts.append(snntorch_neurons(kind, **settings))
    module = torch.nn.Sequential(*parts)
    for seed, (name, parameter) in enumerate(module.named_parameters()):
        if name.endswith(("weight", "bias")):
            values = dyadic(tuple(parameter.shape), -0.5, 0.75, seed)
            parameter.data = torch.tensor(values, dtype=torch.float32)
    nir.write(file, export_to_nir(module, torch.zeros(UNITS)))
    reset = {"zero": "hard", "subtract": "soft"}[mechanism]
    if kinds != PLAIN:
        message = r"looks like one of snnTorch \(.*lif\).*Pass reset_delay=True"
        with pytest.warns(UserWarning, match=message):
            deploy.import_nir(file, T, reset=reset)
    x = dyadic((3, T, UNITS)).astype("float32")
    steps = [module(torch.tensor(x[:, t])).detach().numpy() for t in range(T)]
    theirs = np.stack(steps, axis=1)
    assert 0.05 < theirs.mean() < 0.95
    model = deploy.import_nir(file, T, reset=reset, reset_delay=True)
    assert_array_equal(steps_of(model, x), theirs)


def written(path, *nodes):
    """A file of a chain, as another program writes it."""
    nir.write(path, nir.NIRGraph.from_list(*nodes))
    return path


def full(*values, size=4, dtype="float64"):
    return [np.full(size, value, dtype) for value in values]


def imported(path, **arguments):
    """The layers of the network of a file but for its input."""
    return deploy.import_nir(path, T, **arguments).network.layers[1:]


def test_a_file_that_looks_like_one_of_snntorch_is_not_silently_read_without_its_delay(
    file,
):
    def delays(**arguments):
        return [layer.reset_delay for layer in imported(file, **arguments)]

    tau, r, leak, threshold, reset = full(2e-4, 2.0, 0.0, 1.0, 0.0, dtype="float32")
    leaky = nir.LIF(tau, r, leak, threshold, reset)
    synaptic = nir.CubaLIF(tau, tau, r, leak, threshold, reset, w_in=r)
    written(file, leaky, synaptic)
    message = r"like one of snnTorch \(lif, cubalif\).*Pass reset_delay=True"
    with pytest.warns(UserWarning, match=message):
        assert delays(reset="soft") == [False, False]
    # A hard reset of snnTorch's Leaky is never delayed, one of its Synaptic is.
    assert delays(reset="hard", reset_delay=True) == [False, True]
    for values in ((2e-4, 2.0, 0.5, 1.0, 0.0), (2e-4, 1.0, 0.0, 1.0, 0.0)):
        # No warning.
        written(file, nir.LIF(*full(*values, dtype="float32")))
        imported(file, reset="hard")


@pytest.mark.parametrize("v_reset", [0.0, -0.25])
def test_spikes_of_a_file_of_spikingjelly_are_its_spikes(v_reset, file):
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, nir_exchange

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        neuron.LIFNode(2.0, v_threshold=0.5, v_reset=v_reset),
        layer.Conv2d(4, 4, 3, stride=2, padding=1),
        neuron.ParametricLIFNode(4.0, decay_input=False, v_reset=v_reset),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(8, 6),
        neuron.CUBALIFNode(c_decay=0.5, v_decay=0.5, v_reset=0.0),
    )
    for parameter in module.parameters():
        parameter.data = parameter.data * 2.0
    nir_exchange.export_to_nir(module, torch.zeros(1, 2, 8, 4), save_path=file)
    x = np.random.default_rng(0).normal(0.5, 1.0, (3, T, 8, 4, 2)).astype("float32")
    functional.reset_net(module)
    frames = torch.tensor(np.moveaxis(x, -1, 2))
    steps = [module(frames[:, t]).detach().numpy() for t in range(T)]
    theirs = np.stack(steps, axis=1)
    assert 0.05 < theirs.mean() < 0.95
    assert_array_equal(steps_of(deploy.import_nir(file, T, reset="hard"), x), theirs)


TAU = np.array([2e-4, 4e-4, 2e-4, 1e-3])
NO_LEAK = nir.IF(*full(2e4, 1.5, 0.5))
FOREIGN = {
    "gain": [nir.LIF(*full(2e-4, 1.0, 0.0, 0.375, 0.0))],
    "rest": [nir.LIF(*full(2e-4, 2.0, 0.25, 1.0, -0.25))],
    "no leak": [NO_LEAK],
    "current": [nir.CubaLIF(*full(2e-4, 4e-4 / 3, 1.5, 0.0, 0.875, 0.125), w_in=1.0)],
    "of each neuron": [nir.LIF(TAU, TAU / STEP, *full(0.0, 1.0, 0.0))],
    "readout": [NO_LEAK, nir.LI(*full(2e-4, 4.0, 0.5))],
}


@pytest.mark.parametrize("nodes", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_program_is_that_of_the_equations_of_nir(nodes, file):
    """Also of neurons with a gain, and of membranes that rest elsewhere than at 0."""
    model = deploy.import_nir(written(file, *nodes), T, reset="hard")
    x = dyadic((5, T, 4), -1.0, 3.0)
    outputs = steps_of(model, x)
    assert outputs.std() > 0.2
    assert np.mean(np.abs(loop(nir.read(file), x) - outputs) > 1e-5) < 0.01


def test_an_unknown_surrogate_is_named_and_not_run(file):
    metadata = {"reset": "hard", "surrogate": "__import__('os').abort()"}
    written(file, nir.LIF(*full(2e-4, 2.0, 0.0, 1.0, 0.0), metadata=metadata))
    message = "'lif' was trained with the surrogate __import__"
    with pytest.warns(UserWarning, match=message):
        deploy.import_nir(file, T)


def test_graphs_in_graphs_are_read(file):
    graph = NO_LEAK
    for _ in range(2):
        ends = nir.Input(np.array([4])), nir.Output(np.array([4]))
        nodes = {"input": ends[0], "inner": graph, "output": ends[1]}
        graph = nir.NIRGraph(nodes, [("input", "inner"), ("inner", "output")])
    nir.write(file, graph)
    message = r"not say how its neurons are reset \(inner.inner\)"
    with pytest.warns(UserWarning, match=message):
        (layer,) = imported(file)
    assert (layer.name, layer.reset) == ("inner_inner", "hard")


def test_padding_by_name_sum_pooling_and_decays_of_each_neuron_are_read(file):
    """Also with another time step."""
    parts = [nir.Input(np.array([1, 6, 6]))]
    for size, padding in ((6, "valid"), (4, "same")):
        sizes, ones = (size, size), np.ones((1, 1, 3, 3))
        parts.append(nir.Conv2d(sizes, ones, 1, padding, 1, 1, np.zeros(1)))
    parts.append(nir.SumPool2d(*np.array([[2, 2], [2, 2], [0, 0]])))
    # Their decays differ within each row and column.
    tau = np.array([[[2e-3, 4e-3], [4e-3, 2e-3]]])
    rest, threshold = np.zeros_like(tau), np.full_like(tau, 360.0)
    parts.append(nir.LIF(tau, tau / 1e-3, rest, threshold, rest))
    parts.append(nir.Flatten(np.array([1, 2, 2]), 0, -1))
    parts.append(nir.Flatten(np.array([4]), 0, -1))
    model = deploy.import_nir(written(file, *parts), 2, reset="hard", dt=1e-3)
    # The sums are 9 · 25; after two steps membranes are at 337.5 and 393.75.
    assert_array_equal(to_numpy(model(np.ones((1, 6, 6, 1)))), [[0.0, 0.5, 0.5, 0.0]])


# Out and in again.
def came_back(network, file, atol=1e-5, **arguments):
    """The network of its file, which gives the same outputs at every step."""
    model = deploy.import_nir(exported(network, file), T, **arguments)
    shape = (2, T, *network.inputs[0].shape[1:])
    x = np.random.default_rng(1).normal(0.5, 1.0, shape).astype("float32")
    expected = steps_of(network, x)
    assert expected.std() > 0.01
    assert_allclose(steps_of(model, x), expected, rtol=1e-5, atol=atol)
    return model.network


def chain(shape, *parts):
    network = keras.Sequential([keras.Input(shape), *parts])
    random = np.random.default_rng(0)
    for weight in network.trainable_weights:
        if "threshold" not in weight.name:
            weight.assign(random.normal(0.1, 0.4, weight.shape))
    return network


def varied():
    """Layers of all kinds, with other arguments than the defaults, of which some differ
    between channels or neurons."""
    current = {"synaptic_decay": 0.7, "reset": "hard", "v_reset": 0.1}
    gaussian = rsnn.surrogates.Gaussian(0.3)
    thresholds = np.linspace(0.5, 2.0, 120).reshape(4, 5, 6)
    filtered = {"synaptic_decay": [0.5, 0.75, 0.6], "learn_decay": True, "value": "max"}
    return chain(
        (11, 7, 4),
        layers.Conv2D(4, (3, 2), (2, 1), "same", use_bias=False, name="first"),
        ParametricLIF(0.6, 0.9, detach_reset=False, per_channel=True, surrogate="atan"),
        layers.Conv2D(6, 2, groups=2, dilation_rate=2, name="grouped"),
        CuBaLIF(0.3, thresholds, decay_input=True, surrogate=gaussian, **current),
        layers.ZeroPadding2D(1, name="depthwise_padding"),
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise"),
        IF(1.5, name="no_leak"),
        layers.AveragePooling2D((2, 1), name="pool"),
        layers.Flatten(name="flat"),
        layers.Rescaling(0.5, name="leaky_rescaling"),
        LIF(0.9, learn_threshold=True, name="leaky"),
        layers.Dense(3, use_bias=False, name="last"),
        LeakyReadout([0.5, 0.25, 0.9], decay_input=True, name="readout", **filtered),
    )


@pytest.mark.backends(3)
def test_a_file_that_went_out_and_in_again_is_the_same_network(file):
    network = varied()
    check_same_layers(came_back(network, file), network)
    model = deploy.import_nir(file, T, "bptt")
    assert (model.timesteps, type(model.gradient)) == (T, rsnn.gradients.BPTT)


def check_same_layers(network, expected):
    for layer, original in zip(network.layers[1:], expected.layers, strict=True):
        assert (layer.name, type(layer)) == (original.name, type(original))
        is_exact = not hasattr(original, "cell")
        tolerance = 0.0 if is_exact else 1e-6
        weights = layer.get_weights(), original.get_weights()
        assert_close(*weights, rtol=1e-6, atol=tolerance)
        if is_exact:
            continue
        config, wanted = layer.get_config(), original.get_config()
        assert config.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, list):
                # Those that are learned have changed.
                is_learned = layer.trainable_weights and "decay" in name
                assert is_learned or np.allclose(config[name], value, 1e-6)
            elif name != "decay" or not isinstance(original, ParametricLIF):
                assert config[name] == value


def shortcuts(x):
    """One of them twice, with factors."""
    y = layers.Conv2D(x.shape[-1], 1)(layers.Rescaling(3.0)(x))
    return layers.Rescaling(0.5)(x) + y + y


def normalized(*parts):
    return keras.Sequential([*parts, layers.BatchNormalization()])


def normalized_sum(x):
    dilated = layers.Conv2D(3, 2, padding="same", dilation_rate=3)
    total = layers.Add()([layers.Conv2D(3, 1)(x), dilated(x)])
    return layers.BatchNormalization()(total)


def channel_scales(x):
    scales = np.linspace(0.5, 2.0, x.shape[-1]).tolist()
    return layers.Rescaling(scales, offset=scales[::-1])(x)


SAYABLE = {
    "BatchNormalization": lambda x: normalized(layers.AveragePooling2D(2))(x),
    "Conv2D": lambda x: normalized(
        layers.ZeroPadding2D(1), layers.Conv2D(8, 3, strides=2, use_bias=False)
    )(x),
    "Add": normalized_sum,
    "Dense": lambda x: layers.Dense(3)(x),
    "WSConv2D": lambda x: layers.Rescaling(2.74)(
        own.WSConv2D(3, 2, padding="same")(channel_scales(x))
    ),
    "+": shortcuts,
    "Dropout": lambda x: layers.Dropout(0.5)(
        layers.Reshape(x.shape[1:])(layers.Conv2D(x.shape[-1], 1)(x))
    ),
}
"""Functions of images, by what is new in them; some are lowered to other layers."""
ENDS = (layers.Flatten, layers.GlobalAveragePooling2D, lambda: layers.Reshape((-1,)))


@pytest.mark.parametrize("seed", range(4))
def test_a_network_drawn_of_what_nir_can_say_comes_back(seed, file):
    random = np.random.default_rng(seed)
    x = inputs = keras.Input((6, 6, 2))
    for name in random.permutation(list(SAYABLE)):
        x = SAYABLE[name](x)
        x = (IF(0.5), LIF(0.7), CuBaLIF(0.5, 0.5))[random.integers(3)](x)
    neurons = IF(0.7), LIF(reset="hard"), ParametricLIF(per_channel=True), CuBaLIF(0.5)
    neuron = neurons[seed]
    back = layers.Dense(4, use_bias=seed < 2)
    recurrent = own.Recurrent(neuron, back, name="recurrent")
    x = recurrent(own.WSDense(4)(ENDS[seed % 3]()(x)))
    network = keras.Model(inputs, LeakyReadout(1.0)(channel_scales(layers.Dense(3)(x))))
    give_weights(network, random)
    again = came_back(spiking(network, T, "bptt"), file, atol=1e-4)
    assert type(again.get_layer("recurrent").neuron) is type(neuron.cell)


CONVOLUTIONS = {
    2: lambda: keras.Sequential(
        [
            layers.ZeroPadding1D(1),
            layers.Conv1D(3, 2),
            layers.Conv1D(3, 2, padding="causal"),
        ]
    ),
    3: lambda: layers.DepthwiseConv2D(2),
}


def network_of_axes(shape, convolves, random):
    """Of random neurons; a convolution makes its first or last axis that of
    channels."""
    parts = [CONVOLUTIONS[len(shape)]()] if convolves else []
    for _ in range(2):
        axis = int(random.integers(1, len(shape) + 1))
        channels = ParametricLIF(per_channel=True, axis=axis)
        parts.append((IF(), LIF(), CuBaLIF(), channels)[random.integers(4)])
    order = str(random.choice(["channels_first", "channels_last"]))
    parts += [layers.Flatten(data_format=order), layers.Dense(4)]
    return chain(shape, *parts, ParametricLIF(per_channel=True), layers.Dense(3))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_networks_of_any_number_of_axes_keep_their_inputs_and_outputs(
    axes, data_format, file
):
    keras.config.set_image_data_format(data_format)
    random = np.random.default_rng(axes)
    # Equal axes as well: then a transposed network would raise no error.
    for shape in ((3,) * axes, tuple(random.integers(2, 5, axes).tolist())):
        for convolves in {False, axes in CONVOLUTIONS}:
            network = network_of_axes(shape, convolves, random)
            assert came_back(network, file).input_shape == network.input_shape


@pytest.mark.backends(3)
def test_a_network_keeps_its_precision(file):
    with helpers.double_precision():
        network = convolutional(lambda: LIF(0.9, 0.3))
        for weight in network.weights:
            weight.assign(weight + 0.1)
        again = deploy.import_nir(exported(network, file), T).network
        assert_close(again.get_weights(), network.get_weights(), rtol=0)
        neurons = [layer for layer in again.layers if isinstance(layer, LIF)]
        assert [layer.threshold for layer in neurons] == [0.3] * 3


def test_an_image_without_convolutions_has_channels_first_as_well(file):
    dense = layers.Dense(5, name="dense")
    exported(chain((2, 3, 4), layers.Flatten(), dense, LIF()), file)
    nodes = nir.read(file).nodes
    assert nodes["input"].input_type["input"].tolist() == [4, 2, 3]
    kernel = np.moveaxis(dense.get_weights()[0].reshape(2, 3, 4, 5), 2, 0)
    assert_array_equal(nodes["dense"].weight, kernel.reshape(24, 5).T)


def test_metadata_say_how_neurons_are_reset_and_the_time_step(file):
    neurons = LIF(0.75, surrogate=rsnn.surrogates.ATan(3.0), name="neurons")
    node = nir.read(exported(chain((3,), neurons), file, dt=1e-3)).nodes["neurons"]
    said = {"reset": "soft", "dt": 1e-3, "surrogate": "ATan(alpha=3.0)"}
    assert said.items() <= node.metadata.items()
    assert_allclose(node.tau, np.full(3, 4e-3))
    message = "node 'neurons' of type LIF: its metadata says"
    for argument in ({"reset": "hard"}, {"dt": 1e-4}):
        with pytest.raises(ValueError, match=message):
            deploy.import_nir(file, 2, **argument)
    # Older files say no reset value: 0, as a soft reset needs it.
    with h5py.File(file, "r+") as opened:
        del opened["node/nodes/neurons/v_reset"]
    (layer,) = imported(file, reset="soft", dt=1e-3)
    assert layer.decay == 0.75


# What NIR cannot say.


class OwnDense(layers.Dense):
    def call(self, inputs):
        return -super().call(inputs)


CULPRIT = {"name": "culprit"}
IMAGE, FEATURES = (4, 4, 2), (4,)


def sum_of_sizes(x):
    return layers.Add(**CULPRIT)([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])


def after(first, *following):
    return keras.Sequential([first, *following])


def quantized(x):
    dense = layers.Dense(3, **CULPRIT)
    outputs = dense(x)
    dense.quantize("int8")
    return outputs


def masked(x):
    return layers.BatchNormalization(**CULPRIT)(x, mask=x)


ACTIVATED = layers.Dense(3, activation="relu", **CULPRIT)
FIRST = layers.Conv2D(3, 2, data_format="channels_first")
SCALES = layers.Rescaling([1.0, 2.0, 3.0], **CULPRIT)
EINSUM = layers.EinsumDense("ab,bc->ac", 4)
REFUSED = [
    (
        IMAGE,
        layers.MaxPooling2D(2, **CULPRIT),
        "'culprit' of type MaxPooling2D: .* Pool by AveragePooling2D",
    ),
    (IMAGE, IF(initial_membrane=0.5, **CULPRIT), "'culprit' of type IF"),
    (FEATURES, ACTIVATED, "'culprit' of type Dense"),
    (FEATURES, OwnDense(3, **CULPRIT), "'culprit' of type OwnDense"),
    (FEATURES, own.Neuron(own.ALIFCell(), **CULPRIT), "'culprit' of type Neuron"),
    (FEATURES, quantized, "'culprit'.*quantized already"),
    (FEATURES, masked, "'culprit'.*several inputs, or a mask"),
    (FEATURES, lambda x: LIF()(x) + 1.0, "it adds a constant"),
    (IMAGE, after(FIRST, layers.Dense(4, **CULPRIT)), "'culprit'.*convolution of 1x1"),
    (IMAGE, after(FIRST, SCALES), "'culprit'.*Use one scale"),
    (IMAGE, after(FIRST, layers.Conv2D(1, 1, **CULPRIT)), "'culprit'.*data_format"),
    (IMAGE, layers.BatchNormalization(axis=1, **CULPRIT), "'culprit'.*its axis 1 is"),
    (
        IMAGE,
        own.TemporalEffectiveBatchNormalization(T, **CULPRIT),
        "'culprit'.*the same at each step",
    ),
    (IMAGE, layers.Reshape((2, 8, 2), **CULPRIT), "'culprit'.*moves elements"),
    (
        IMAGE,
        after(layers.ZeroPadding2D(), layers.Rescaling(1.0, 0.5, **CULPRIT)),
        "'culprit'.*moves the zeros",
    ),
    (IMAGE, layers.ZeroPadding2D(**CULPRIT), "'culprit'.*zeros around the output"),
    (IMAGE, sum_of_sizes, "'culprit' of type Add"),
    (IMAGE, layers.AveragePooling2D(3, padding="same"), "it pools at the edges"),
    (FEATURES, LeakyReadout(1.0, synaptic_decay=0.5), "no membrane without a leak"),
    # NIR has channels first: equal axes would be mixed up without an error.
    ((3, 3), after(LIF(), layers.Dense(4, **CULPRIT)), "'culprit'.*Flatten it"),
    (IMAGE, lambda x: [LIF()(x), LIF()(x)], "one input and one output"),
    (IMAGE, after(LIF(), layers.Flatten()), "must not end with flattened"),
    (
        IMAGE,
        after(layers.ZeroPadding2D(), LIF(name="lif")),
        "around the input of layer",
    ),
    ((None, 4, 1), after(layers.Conv2D(1, 2), LIF()), "shape of its input"),
    (
        FEATURES,
        own.Recurrent(own.ALIF(), layers.Dense(4)),
        "CuBaLIF, ParametricLIF only",
    ),
    (FEATURES, own.Recurrent(LIF(), EINSUM), "through a Dense layer only"),
    (
        FEATURES,
        own.Recurrent(LIF(reset_delay=True), layers.Dense(4)),
        "resets its neuron at once",
    ),
]


@pytest.mark.parametrize(("shape", "call", "message"), REFUSED)
def test_what_nir_cannot_say_is_named_before_a_file_is_written(
    shape, call, message, file
):
    inputs = keras.Input(shape)
    with pytest.raises(ValueError, match=message):
        deploy.export_nir(keras.Model(inputs, call(inputs)), file)
    assert list(file.parent.iterdir()) == []


def test_the_extra_is_named_when_it_is_missing(file, monkeypatch):
    message = r'python -m pip install "nir>='
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=message):
        deploy.import_nir(file, 2)
