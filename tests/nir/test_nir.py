"""NIR files: other libraries read ours with our spikes, we read theirs with their
spikes, and what went out comes in again.

Where another program runs the network, weights and inputs are `dyadic`: membranes are
exact in float32, so that spikes are equal at every step, also those of membranes that
are exactly at the threshold.
"""

import functools
import sys

import helpers
import keras
import nir
import numpy as np
import pytest
from helpers import BACKEND, assert_close, dyadic, saved_and_loaded, spiking, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import IF, LIF, CuBaLIF, LeakyReadout, ParametricLIF

pytestmark = pytest.mark.runs_once

T = 6
STEP = 1e-4
OF_NIRTORCH = pytest.mark.filterwarnings(
    "ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning"
)


def with_dyadic_weights(network):
    for seed, weight in enumerate(network.weights):
        weight.assign(dyadic(weight.shape, -1.0, 1.0, seed))
    return network


def convolutional(neuron, shape=(8, 6, 2)):
    """All that other libraries read, too: an odd zero at the end, a kernel without
    bias, pooling, flattening, a branch."""
    inputs = keras.Input(shape)
    x = neuron()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    y = neuron()(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Add()([x, y])))
    x = neuron()(layers.Dense(6)(x))
    return with_dyadic_weights(keras.Model(inputs, layers.Dense(3)(x)))


def exported(network, path, **kwargs):
    rsnn.export_nir(network, path, **kwargs)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "network.nir"


def steps_of(network, x):
    """The outputs at every step, `(batch, T, ...)`."""
    model = (
        network
        if isinstance(network, rsnn.SpikingModel)
        else spiking(network, x.shape[1], "bptt")
    )
    model.return_sequences = True
    # On JAX one compiled program takes less time than many.
    return model.predict(x, verbose=0) if BACKEND == "jax" else to_numpy(model(x))


def steps_of_torch(module, x):
    """The outputs of a module that NIRTorch made, for inputs `(batch, T, channels,
    ...)`."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for step in np.moveaxis(x, 1, 0):
            output, state = module(torch.tensor(np.ascontiguousarray(step)), state)
            outputs.append(output.numpy())
    return np.stack(outputs, axis=1)


# Our files in other programs.
SNNTORCH = {
    "LIF": lambda: LIF(0.5, reset="hard"),
    "CuBaLIF": lambda: CuBaLIF(0.5, synaptic_decay=0.25, reset="hard"),
}


@pytest.mark.parametrize("neuron", SNNTORCH)
def test_snntorch_reads_our_file_with_our_spikes(neuron, file):
    from snntorch.import_nir import import_from_nir

    network = convolutional(SNNTORCH[neuron])
    x = dyadic((3, T, 8, 6, 2)).astype("float32")
    ours = steps_of(network, x)
    theirs = import_from_nir(nir.read(exported(network, file)))
    assert np.unique(ours).size > 15
    found = steps_of_torch(theirs, np.moveaxis(x, -1, 2))
    assert_array_equal(found, ours)


HARD = {"reset": "hard", "name": "n"}


@pytest.mark.parametrize(
    ("neurons", "said"),
    [
        (LIF(0.5, 0.5, decay_input=True, **HARD), False),
        (CuBaLIF(decay_input=True, **HARD), False),
        (IF(**HARD), False),
        (LIF(0.5, decay_input=True, name="n"), True),
        (LIF(0.5, **HARD), True),
        (IF(name="n"), True),
    ],
)
def test_an_export_says_which_neurons_some_programs_run_in_another_way(
    neurons, said, file, capsys
):
    parts = layers.Dense(2), neurons, layers.Dense(2)
    exported(keras.Sequential([keras.Input((3,)), *parts]), file)
    line = "Some programs run n in another way: see Train for NIR in docs/deploy.md.\n"
    assert capsys.readouterr().out == (line if said else "")


SPIKINGJELLY = {
    **SNNTORCH,
    "IF": lambda: IF(reset="hard"),
    "LIF soft": lambda: LIF(0.5),
    "LIF decay_input": lambda: LIF(0.5, 0.5, reset="hard", decay_input=True),
}


def spikingjelly(path, soft=False, dtype="float32"):
    """The network of a file in SpikingJelly, which reads every reset as a hard one,
    with a soft reset if wanted."""
    import torch
    from spikingjelly.activation_based import neuron, nir_exchange

    module = nir_exchange.import_from_nir(path, dtype=getattr(torch, dtype))
    for part in module.modules():
        if soft and isinstance(part, neuron.BaseNode):
            part.v_reset = None
    return module


@pytest.mark.parametrize("neuron", SPIKINGJELLY)
def test_spikingjelly_reads_our_file_with_our_spikes(neuron, file):
    network = convolutional(SPIKINGJELLY[neuron])
    x = dyadic((3, T, 8, 6, 2)).astype("float32")
    theirs = spikingjelly(exported(network, file), soft="soft" in neuron)
    assert_array_equal(
        steps_of_torch(theirs, np.moveaxis(x, -1, 2)), steps_of(network, x)
    )


@pytest.mark.parametrize(
    ("name", "shape", "scale"),
    [("digits", (8, 8, 1), 16.0), ("fashion_mnist", (28, 28, 1), 255.0)],
)
def test_spikingjelly_reads_the_shipped_networks_with_our_spikes(
    name, shape, scale, file
):
    model = rsnn.models.load_pretrained(name)
    trained = rsnn.fold_batch_normalization(model, verbose=False).network

    # In float64 no membrane is so close to its threshold that rounding decides.
    def in_float64(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    with helpers.double_precision():
        network = keras.models.clone_model(trained, clone_function=in_float64)
        network.set_weights(trained.get_weights())
        images = scale * np.random.default_rng(0).random((2, 1, *shape))
        x = np.repeat(images, 4, axis=1)
        *_, last = (layer.output for layer in network.layers if isinstance(layer, LIF))
        hidden = keras.Model(network.inputs, last)
        theirs = spikingjelly(exported(hidden, file), soft=True, dtype="float64")
        spikes = steps_of(hidden, x)
        found = np.moveaxis(steps_of_torch(theirs, np.moveaxis(x, -1, 2)), 2, -1)
    assert 0.02 < spikes.mean() < 0.98
    assert_array_equal(found, spikes)


def loop(graph, x, soft=False):
    """NIR's equations by Euler's method, node by node along a chain, in float64.

    Args:
        graph: A `nir.NIRGraph` without branches, of affine layers and neurons.
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
        current, v, spikes = np.zeros_like(x[:, 0]), np.zeros_like(x[:, 0]), []
        for step in np.moveaxis(x, 1, 0):
            if isinstance(node, nir.CubaLIF):
                current = current + STEP / node.tau_syn * (-current + node.w_in * step)
                v = v + STEP / node.tau_mem * (node.v_leak - v + node.r * current)
            elif isinstance(node, nir.LIF):
                v = v + STEP / node.tau * (node.v_leak - v + node.r * step)
            else:
                v = v + STEP * node.r * step
            # Rounding of τ is not what this is about.
            v = np.round(v, 9)
            spike = v > node.v_threshold
            v = np.where(
                spike, v - np.round(node.v_threshold, 6) if soft else node.v_reset, v
            )
            spikes.append(spike)
        x = np.stack(spikes, axis=1).astype("float64")
    return x


_HALVES = [keras.initializers.Constant(value) for value in (0.5, 1.0, -0.5)]
NEURONS = {
    "IF": lambda: IF(1.25, reset="hard", v_reset=-0.25),
    "IF soft": lambda: IF(),
    "LIF": lambda: LIF(0.5, 0.75, reset="hard", v_reset=0.25),
    "LIF soft": lambda: LIF(0.25),
    "no memory": lambda: LIF(0.0),
    "scaled input": lambda: LIF(0.5, 0.5, reset="hard", decay_input=True),
    "scaled current": lambda: CuBaLIF(
        0.25, 0.75, synaptic_decay=0.5, reset="hard", decay_input=True
    ),
    "CuBaLIF": lambda: CuBaLIF(0.25, synaptic_decay=0.5, reset="hard", v_reset=-0.5),
    "CuBaLIF soft": lambda: CuBaLIF(0.25, synaptic_decay=0.5),
    "ParametricLIF": lambda: ParametricLIF(0.5, reset="hard", per_channel=True),
    "learned threshold": lambda: LIF(0.5, 1.5, reset="hard", learn_threshold=True),
    "of each neuron": lambda: CuBaLIF(
        *_HALVES[:2], synaptic_decay=_HALVES[0], reset="hard", v_reset=_HALVES[2]
    ),
    "stabilised threshold": lambda: LIF(
        0.5, 1.5, reset="hard", threshold_stabilizer=True
    ),
}


@pytest.mark.on_each_backend
@pytest.mark.parametrize("neuron", NEURONS)
def test_spikes_are_those_of_the_equations_of_nir(neuron, file):
    first, second = NEURONS[neuron](), NEURONS[neuron]()
    synapses = layers.Dense(8, use_bias=False), layers.Dense(6)
    chain = [keras.Input((5,)), synapses[0], first, synapses[1], second]
    network = keras.Sequential(chain)
    with_dyadic_weights(keras.Sequential(synapses))
    for layer in (first, second):
        if "Parametric" in neuron:
            # Decays of 1/4 and 1/2.
            logits = np.resize([0.0, -np.log(3.0)], layer.cell.decay_logit.shape)
            layer.cell.decay_logit.assign(logits)
        if "each" in neuron:
            size = len(layer.decay)
            layer.set_decay(np.resize([0.5, 0.25], size))
            layer.set_threshold(np.resize([1.0, 0.75, 1.25], size))
        if "learned" in neuron:
            layer.cell.log_threshold.assign(np.log(1.25))
        if "stabilised" in neuron:
            layer.stabilizer.running_threshold.assign(1.25)
    x = dyadic((4, T, 5))
    spikes = steps_of(network, x)
    assert 0.05 < spikes.mean() < 0.95
    soft = "soft" in neuron or neuron == "no memory"
    expected = loop(nir.read(exported(network, file)), x, soft)
    # A sigmoid or an exponential is rounded: a membrane at its threshold may be on
    # either side.
    rounded = "Parametric" in neuron or "learned" in neuron
    assert np.mean(expected != spikes) <= (0.02 if rounded else 0.0)


# Files of other programs.
RESETS = {"zero": "hard", "subtract": "soft"}


def snntorch_neurons(kind, size, **kwargs):
    import snntorch
    import torch

    decays = {"alpha": 0.25, "beta": 0.5} if "Synaptic" in kind else {"beta": 0.5}
    values = {**decays, "threshold": 1.0}
    arrays = {name: torch.full((size,), value) for name, value in values.items()}
    return getattr(snntorch, kind)(**arrays, init_hidden=True, **kwargs)


def check_spikes_of_snntorch(module, file, warning=None, **arguments):
    """Writes a module as snnTorch does, and reads it."""
    import torch
    from snntorch.export_nir import export_to_nir

    for seed, (name, parameter) in enumerate(module.named_parameters()):
        if name.endswith(("weight", "bias")):
            values = dyadic(tuple(parameter.shape), -0.5, 0.75, seed)
            parameter.data = torch.tensor(values, dtype=torch.float32)
    nir.write(file, export_to_nir(module, torch.zeros(5)))
    if warning:
        with pytest.warns(UserWarning, match=warning):
            rsnn.import_nir(file, T, reset=arguments["reset"])
    x = dyadic((3, T, 5)).astype("float32")
    steps = [module(torch.tensor(x[:, t])).detach().numpy() for t in range(T)]
    theirs = np.stack(steps, axis=1)
    assert 0.05 < theirs.mean() < 0.95
    ours = steps_of(rsnn.import_nir(file, T, **arguments), x)
    assert_array_equal(ours, theirs)


@OF_NIRTORCH
@pytest.mark.parametrize(
    ("mechanism", "delay"), [("zero", False), ("zero", True), ("subtract", True)]
)
def test_spikes_of_a_file_of_snntorch_are_its_spikes(mechanism, delay, file):
    import torch

    kwargs = {"reset_mechanism": mechanism, "reset_delay": delay}
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 8),
        snntorch_neurons("Leaky", 8, **kwargs),
        torch.nn.Linear(8, 6),
        snntorch_neurons("Synaptic", 6, **kwargs),
    )
    reset = RESETS[mechanism]
    check_spikes_of_snntorch(module, file, reset=reset, reset_delay=delay)


@OF_NIRTORCH
@pytest.mark.parametrize("mechanism", RESETS)
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_spikes_of_recurrent_neurons_are_snntorchs_and_their_delay_is_asked_for(
    kind, mechanism, file
):
    import torch

    kwargs = {"linear_features": 8, "reset_mechanism": mechanism}
    neurons = snntorch_neurons(kind, 8, **kwargs)
    module = torch.nn.Sequential(torch.nn.Linear(5, 8), neurons)
    warning = r"looks like one of snnTorch \(.*lif\).*Pass reset_delay=True"
    check_spikes_of_snntorch(
        module, file, warning, reset=RESETS[mechanism], reset_delay=True
    )


def delays_of(file, **arguments):
    network = rsnn.import_nir(file, T, **arguments).network
    return [layer.reset_delay for layer in network.layers[1:]]


def test_a_file_that_looks_like_one_of_snntorch_is_not_silently_read_without_its_delay(
    file,
):
    leaky = full(2e-4, 2.0, 0.0, 1.0, 0.0, dtype="float32")
    current = {"tau_syn": leaky[0], "w_in": leaky[1]}
    names = "tau_mem", "r", "v_leak", "v_threshold", "v_reset"
    synaptic = nir.CubaLIF(**dict(zip(names, leaky, strict=True)), **current)
    written(file, nir.LIF(*leaky), synaptic)
    message = r"like one of snnTorch \(lif, cubalif\).*Pass reset_delay=True"
    with pytest.warns(UserWarning, match=message):
        assert delays_of(file, reset="soft") == [False, False]
    # A hard reset of snnTorch's Leaky is never delayed, one of its Synaptic is.
    assert delays_of(file, reset="hard", reset_delay=True) == [False, True]
    for values in ((2e-4, 2.0, 0.5, 1.0, 0.0), (2e-4, 1.0, 0.0, 1.0, 0.0)):
        # No warning.
        written(file, nir.LIF(*full(*values, dtype="float32")))
        delays_of(file, reset="hard")


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
        layer.Linear(6, 5),
        neuron.IFNode(v_threshold=0.5, v_reset=0.0),
    )
    for parameter in module.parameters():
        parameter.data = parameter.data * 2.0
    nir_exchange.export_to_nir(module, torch.zeros(1, 2, 8, 4), save_path=file)
    model = rsnn.import_nir(file, T, reset="hard")
    x = np.random.default_rng(0).normal(0.5, 1.0, (3, T, 8, 4, 2)).astype("float32")
    functional.reset_net(module)
    frames = torch.tensor(np.moveaxis(x, -1, 2))
    steps = [module(frames[:, t]).detach().numpy() for t in range(T)]
    theirs = np.stack(steps, axis=1)
    assert 0.05 < theirs.mean() < 0.95
    assert_array_equal(steps_of(model, x), theirs)
    neurons = [n for n in model.network.layers if hasattr(n, "decay_input")]
    assert [n.decay_input for n in neurons if not isinstance(n, IF)] == [
        True,
        False,
        False,
    ]


# Out and in again.
def came_back(network, file, atol=1e-5, dt=1e-4, **arguments):
    """The network of its file, which gives the same outputs at every step."""
    model = rsnn.import_nir(exported(network, file, dt=dt), T, **arguments)
    shape = (2, T, *network.input_shape[1:])
    x = np.random.default_rng(1).normal(0.5, 1.0, shape).astype("float32")
    expected = steps_of(network, x)
    if "data_format" in arguments:
        x = np.moveaxis(x, -1, 2)
    assert_allclose(steps_of(model, x), expected, rtol=1e-5, atol=atol)
    return model.network


def randomized(network):
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "threshold" not in weight.name and "variance" not in weight.name:
            weight.assign(random.normal(0.1, 0.4, weight.shape))
    return network


def chain(shape, *parts):
    return randomized(keras.Sequential([keras.Input(shape), *parts]))


def varied():
    """Layers of all kinds, with other arguments than the defaults."""
    current = {"synaptic_decay": 0.7, "reset": "hard", "v_reset": 0.1}
    gaussian = rsnn.surrogates.Gaussian(0.3)
    return chain(
        (11, 7, 4),
        layers.Conv2D(4, (3, 2), (2, 1), "same", use_bias=False, name="first"),
        ParametricLIF(0.6, 0.9, detach_reset=False, per_channel=True, surrogate="atan"),
        layers.Conv2D(6, 2, groups=2, dilation_rate=2, name="grouped"),
        CuBaLIF(0.3, 1.1, decay_input=True, surrogate=gaussian, **current),
        layers.ZeroPadding2D(1, name="depthwise_padding"),
        layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise"),
        IF(1.5, name="no_leak"),
        layers.AveragePooling2D((2, 1), name="pool"),
        layers.Flatten(name="flat"),
        layers.Rescaling(0.5, name="leaky_rescaling"),
        LIF(0.9, learn_threshold=True, name="leaky"),
        layers.Dense(5, name="dense"),
        ParametricLIF(0.25, per_channel=True, name="each"),
        layers.Dense(3, use_bias=False, name="readout"),
    )


def rows():
    return chain(
        (9, 2),
        layers.Conv1D(4, 3, padding="causal", name="causal"),
        LIF(name="a"),
        layers.Conv1D(4, 4, strides=2, padding="same", name="same"),
        LIF(name="b"),
        layers.ZeroPadding1D(2, name="depthwise_padding"),
        layers.DepthwiseConv1D(2, name="depthwise"),
        layers.Flatten(name="flat"),
        layers.Dense(3, name="readout"),
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("make", [varied, rows])
def test_a_file_that_went_out_and_in_again_is_the_same_network(make, file):
    network = make()
    check_same_layers(came_back(network, file), network)
    model = rsnn.import_nir(file, T, "bptt")
    assert (model.timesteps, type(model.gradient)) == (T, rsnn.gradients.BPTT)


def check_same_layers(network, expected):
    for layer, original in zip(network.layers[1:], expected.layers, strict=True):
        assert (layer.name, type(layer)) == (original.name, type(original))
        is_exact = not hasattr(original, "cell")
        tolerance = 0.0 if is_exact else 1e-6
        weights = layer.get_weights(), original.get_weights()
        assert_close(*weights, rtol=1e-6, atol=tolerance)
        if not is_exact:
            config, wanted = layer.get_config(), original.get_config()
            if isinstance(original, ParametricLIF):
                config["decay"] = wanted["decay"]
            assert config == wanted


@pytest.mark.parametrize(
    ("readout", "kind"),
    [
        (LeakyReadout(0.9, value="last"), nir.LI),
        (
            LeakyReadout(0.75, decay_input=True, synaptic_decay=0.5, value="max"),
            nir.CubaLI,
        ),
        (LeakyReadout(1.0), nir.I),
    ],
)
def test_a_readout_goes_out_and_in_again(readout, kind, file):
    network = chain((4,), IF(name="if"), layers.Dense(3, name="dense"), readout)
    check_same_layers(came_back(network, file, dt=1e-3), network)
    assert isinstance(nir.read(file).nodes[readout.name], kind)


def test_a_readout_of_another_program_is_that_of_the_equations_of_nir(file):
    """With a gain of 2 and a resting membrane of 0.5."""
    x = dyadic((2, T, 4), 0.0, 2.0, 1)
    readout = nir.LI(*full(2 * STEP, 4.0, 0.5))
    written(file, nir.IF(*full(1.0 / STEP, 1.0, 0.0)), readout)
    model = rsnn.import_nir(file, T, reset="hard")
    network = model.network
    spikes = steps_of(keras.Model(network.inputs, network.get_layer("if").output), x)
    membrane = np.full((2, 4), 0.5)
    for t, output in enumerate(np.moveaxis(steps_of(model, x), 1, 0)):
        membrane = membrane + (0.5 - membrane + 4.0 * spikes[:, t]) / 2
        assert_allclose(output, membrane, rtol=1e-6)


CONVOLUTIONS = {
    2: (layers.Conv1D, layers.DepthwiseConv1D),
    3: (layers.Conv2D, layers.DepthwiseConv2D),
}


def random_network(random, shape, data_format, convolves):
    """A small network of random neurons; a convolution makes its first or last axis
    that of channels."""
    parts = []
    if convolves:
        plain, depthwise = CONVOLUTIONS[len(shape)]
        padding = random.choice(["valid", "same"])
        arguments = {"padding": padding, "data_format": data_format}
        is_plain = random.random() < 0.5
        parts.append(
            plain(3, 2, **arguments) if is_plain else depthwise(2, **arguments)
        )
    for _ in range(2):
        axis = int(random.integers(1, len(shape) + 1))
        channels = ParametricLIF(per_channel=True, axis=axis)
        parts.append(random.choice([IF(), LIF(), CuBaLIF(), channels]))
    order = random.choice(["channels_first", "channels_last"])
    parts += [layers.Flatten(data_format=order), layers.Dense(4)]
    return chain(shape, *parts, ParametricLIF(per_channel=True), layers.Dense(3))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("axes", "convolves"),
    [(1, False), (2, False), (2, True), (3, False), (3, True), (4, False)],
)
def test_networks_of_any_number_of_axes_keep_their_inputs_and_outputs(
    axes, convolves, data_format, file
):
    keras.config.set_image_data_format(data_format)
    random = np.random.default_rng(axes)
    # Equal axes as well: then a transposed network would raise no error.
    for shape in ((3,) * axes, random.integers(2, 5, axes).tolist()):
        network = random_network(random, tuple(shape), data_format, convolves)
        assert came_back(network, file).input_shape == network.input_shape


def factors():
    inputs = keras.Input((4,))
    x = LIF()(layers.Rescaling(2.0, offset=0.5)(inputs))
    y = layers.Dense(4)(layers.Rescaling(3.0)(x))
    x = layers.Rescaling(0.5)(x) + y + y
    return with_dyadic_weights(keras.Model(inputs, layers.Dense(2)(LIF()(x))))


def standardised():
    return chain(
        (5, 5, 2),
        rsnn.layers.WSConv2D(3, 3, padding="same"),
        LIF(),
        layers.Rescaling(2.74),
        layers.Flatten(),
        rsnn.layers.WSDense(4),
        LIF(),
        layers.Dense(2),
    )


def resnet():
    def normalized(x, *args, **kwargs):
        convolution = layers.Conv2D(*args, use_bias=False, **kwargs)
        return layers.BatchNormalization()(convolution(x))

    inputs = keras.Input((6, 6, 3))
    x = LIF(reset="hard")(normalized(inputs, 4, 3, padding="same"))
    y = LIF()(normalized(layers.ZeroPadding2D(1)(x), 8, 3, strides=2))
    y = normalized(y, 8, 3, padding="same")
    x = LIF()(layers.Add()([normalized(x, 8, 1, strides=2), y]))
    pooled = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3)(pooled))


def then_neurons(call):
    """What is lowered to other layers, before neurons."""

    def make():
        inputs = keras.Input((4, 4, 2))
        x = layers.Flatten()(IF()(call(inputs)))
        return randomized(keras.Model(inputs, layers.Dense(3)(x)))

    return make


def normalized_sum(x):
    total = layers.Add()([layers.Conv2D(3, 1)(x), layers.Conv2D(3, 1)(x)])
    return layers.BatchNormalization()(total)


LOWERED = {
    "factors": factors,
    "standardised weights": standardised,
    "a ResNet": resnet,
    "normalisation after pooling": then_neurons(
        lambda x: layers.BatchNormalization()(layers.AveragePooling2D(2)(x))
    ),
    "normalisation of a sum": then_neurons(normalized_sum),
    "a dense layer at each place": then_neurons(lambda x: layers.Dense(3)(x)),
    "a scale for each channel": then_neurons(
        lambda x: layers.Rescaling([1.0, 2.0], [0.5, 0.0])(x)
    ),
    "a shape of one axis": then_neurons(
        lambda x: layers.Dense(4)(layers.Reshape((32,))(x))
    ),
}


@pytest.mark.parametrize("name", LOWERED)
def test_what_is_lowered_to_other_layers_comes_in_again(name, file):
    came_back(LOWERED[name](), file, atol=1e-4)
    if name == "factors":
        # Sums are edges.
        kinds = [type(node) for node in nir.read(file).nodes.values()]
        assert kinds.count(nir.Scale) == 2


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(
    "make", [functools.partial(layers.Dense, 4), layers.BatchNormalization]
)
def test_channels_of_a_signal_that_is_no_image_are_refused(make, size, file):
    """NIR has channels first: equal axes would be mixed up without an error."""
    parts = LIF(), make(name="culprit"), LIF(), layers.Flatten(), layers.Dense(2)
    with pytest.raises(ValueError, match=r"layer 'culprit'.*Flatten it"):
        exported(chain((size, 3), *parts), file)


@pytest.mark.on_each_backend
def test_a_network_goes_out_and_in_again_in_the_precision_that_it_has(file):
    def thresholds(network):
        neurons = [layer for layer in network.layers if isinstance(layer, LIF)]
        return [layer.threshold for layer in neurons]

    with helpers.double_precision():
        network = randomized(convolutional(lambda: LIF(0.9, 0.3)))
        again = rsnn.import_nir(exported(network, file), T).network
        assert_close(again.get_weights(), network.get_weights(), rtol=0)
        assert thresholds(again) == [0.3] * 3
    keras.config.set_dtype_policy("mixed_bfloat16")
    exported(convolutional(lambda: LIF(0.9, 0.3)), file)
    assert thresholds(rsnn.import_nir(file, T).network) == [0.3] * 3


def arrays_of(path):
    """The edges of a file, and all of its arrays."""
    graph, arrays = nir.read(path), {}
    for name, node in graph.nodes.items():
        for key, value in vars(node).items():
            if key == "input_type":
                arrays[f"{name}/shape"] = value["input"]
            elif isinstance(value, np.ndarray):
                arrays[f"{name}/{key}"] = value
    return sorted(graph.edges), arrays


def images(data_format, shape, axis):
    order = {"data_format": data_format}
    return chain(
        shape,
        layers.Conv2D(4, 3, strides=2, padding="same", name="convolution", **order),
        ParametricLIF(per_channel=True, axis=axis, name="neurons"),
        layers.AveragePooling2D(2, name="pool", **order),
        layers.Flatten(name="flat", **order),
        ParametricLIF(per_channel=True, name="more"),
        layers.Dense(3, name="dense"),
    )


def test_images_with_channels_first_are_the_same_file(file):
    last = images("channels_last", (9, 7, 2), -1)
    edges, arrays = arrays_of(exported(last, file))
    assert arrays["input/shape"].tolist() == [2, 9, 7]
    came_back(last, file, data_format="channels_first")
    exported(images("channels_first", (2, 9, 7), 1), file)
    assert arrays_of(file)[0] == edges
    assert_close(arrays_of(file)[1], arrays, rtol=1e-5)


def test_an_image_without_convolutions_has_channels_first_as_well(file):
    dense = layers.Dense(5, name="dense")
    exported(chain((2, 3, 4), layers.Flatten(), dense, LIF()), file)
    _, arrays = arrays_of(file)
    assert arrays["input/shape"].tolist() == [4, 2, 3]
    kernel = np.moveaxis(dense.get_weights()[0].reshape(2, 3, 4, 5), 2, 0)
    assert_array_equal(arrays["dense/weight"], kernel.reshape(24, 5).T)


def test_all_forms_of_a_network_are_the_same_file(file):
    first, neurons, last = layers.Dense(5, name="a"), LIF(name="b"), layers.Dense(3)
    block = keras.Sequential([keras.Input((6,)), first, neurons], name="block")
    nested = chain((6,), block, layers.Dropout(0.5), last)
    inputs = keras.Input((6,))
    functional = keras.Model(inputs, last(neurons(first(inputs))))
    edges, arrays = arrays_of(exported(functional, file))
    end = last.name
    assert edges == [("a", "b"), ("b", end), (end, "output"), ("input", "a")]
    for network in (nested, spiking(nested)):
        other_edges, other_arrays = arrays_of(exported(network, file))
        assert other_edges == edges
        assert_close(other_arrays, arrays, rtol=0)


@pytest.mark.on_each_backend
def test_an_imported_model_can_be_trained_and_saved(file):
    model = rsnn.import_nir(exported(convolutional(LIF), file), 3)
    x, y = helpers.data(8, (8, 6, 2))
    before = model.get_weights()
    helpers.compiled(model).fit(x, y, verbose=0)
    assert np.any(before[0] != model.get_weights()[0])
    loaded = saved_and_loaded(model)
    assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)


def test_values_of_channels_and_neurons_go_out_and_in_again(file):
    """Also where features are flattened in another order, and of neurons that learn
    them."""
    halves = np.resize([0.25, 0.5, 0.75], (3, 2, 4))
    learned = {"learn_threshold": True, "learn_decay": True}
    reset = {"reset": "hard", "v_reset": -halves}
    thresholds = np.linspace(0.5, 2.0, 24)
    neurons = [
        LIF([0.25, 0.5, 0.75, 0.5], halves + 0.25, name="image", **reset),
        CuBaLIF(0.5, thresholds, synaptic_decay=halves.ravel(), name="flat"),
        LIF([0.5, 0.25, 0.75], [0.5, 1.0, 1.5], name="learned", **learned),
        LeakyReadout(
            [0.5, 0.25], synaptic_decay=[0.5, 0.75], learn_decay=True, name="readout"
        ),
    ]
    weighted = layers.Conv2D(4, 1), layers.Dense(3), layers.Dense(2)
    parts = weighted[0], neurons[0], layers.Flatten(), neurons[1], weighted[1]
    inputs = keras.Input((3, 2, 4))
    network = keras.Sequential([inputs, *parts, neurons[2], weighted[2], neurons[3]])
    with_dyadic_weights(keras.Sequential(weighted))
    again = came_back(network, file, atol=1e-4)
    for original in neurons:
        layer = again.get_layer(original.name)
        assert type(layer) is type(original)
        assert len(layer.trainable_weights) == len(original.trainable_weights)
        for argument in ("decay", "threshold", "v_reset", "synaptic_decay"):
            if hasattr(original, argument):
                value, expected = getattr(layer, argument), getattr(original, argument)
                assert_allclose(value, expected, rtol=1e-6)


# What the metadata says.
def test_metadata_say_how_neurons_are_reset_and_the_time_step(file):
    neurons = LIF(0.75, surrogate=rsnn.surrogates.ATan(3.0), name="neurons")
    node = nir.read(exported(chain((3,), neurons), file, dt=1e-3)).nodes["neurons"]
    said = {"reset": "soft", "dt": 1e-3, "surrogate": "ATan(alpha=3.0)"}
    assert said.items() <= node.metadata.items()
    for values, expected in ((node.tau, 4e-3), (node.r, 4.0), (node.v_reset, 0.0)):
        assert_allclose(values, np.full(3, expected))
    message = "node 'neurons' of type LIF: its metadata says"
    for argument in ({"reset": "hard"}, {"dt": 1e-4}, {"reset_delay": True}):
        with pytest.raises(ValueError, match=message):
            rsnn.import_nir(file, 2, **argument)
    network = rsnn.import_nir(file, 2, reset="soft", dt=1e-3).network
    assert network.layers[1].decay == 0.75


def written(path, *nodes):
    """A file of a chain, as another program writes it."""
    nir.write(path, nir.NIRGraph.from_list(*nodes))
    return path


def full(*values, size=4, dtype="float64"):
    return [np.full(size, value, dtype) for value in values]


def only_layer(path, **arguments):
    (layer,) = rsnn.import_nir(path, T, **arguments).network.layers[1:]
    return layer


FOREIGN = {
    "gain": nir.LIF(*full(2e-4, 1.0, 0.0, 0.375, 0.0)),
    "rest": nir.LIF(*full(2e-4, 2.0, 0.25, 1.0, -0.25)),
    "no leak": nir.IF(*full(2e4, 1.5, 0.5)),
    "current": nir.CubaLIF(*full(2e-4, 4e-4 / 3, 1.5, 0.0, 0.875, 0.125), w_in=1.0),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_factors_of_the_input_and_membranes_at_rest_are_converted(name, file):
    model = rsnn.import_nir(written(file, FOREIGN[name]), T, reset="hard")
    x = dyadic((5, T, 4), -1.0, 3.0)
    spikes, graph = steps_of(model, x), nir.read(file)
    assert 0.05 < spikes.mean() < 0.95
    if name == "rest":
        # The loop starts at 0: let it start where the neurons rest.
        graph.nodes["lif"] = nir.LIF(*full(2e-4, 2.0, 0.0, 0.75, -0.5))
    assert np.mean(loop(graph, x) != spikes) < 0.01


@pytest.mark.parametrize(
    ("threshold", "v_reset", "message"),
    [
        (1.0, 1.5, "its v_reset is above its threshold"),
        (0.0, 0.0, "its v_threshold is .* In float32 .* rounded to 0"),
        (1e-300, 0.0, "its v_threshold is .* In float32 .* rounded to 0"),
    ],
)
def test_a_threshold_that_cannot_be_names_the_node(threshold, v_reset, message, file):
    node = nir.LIF(*full(2e-4, 2.0, 0.0, threshold, v_reset))
    with pytest.raises(ValueError, match=f"node 'lif' of type LIF: {message}"):
        rsnn.import_nir(written(file, node), T, reset="hard")


def test_time_constants_of_channels_or_neurons_are_those_of_layers_that_have_such(file):
    tau = np.array([2e-4, 4e-4, 2e-4, 1e-3])
    written(file, nir.LIF(tau, tau / STEP, *full(0.0, 1.0, 0.0)))
    decays = to_numpy(only_layer(file, reset="hard").cell.effective_decay())[0]
    assert_allclose(decays, [0.5, 0.75, 0.5, 0.9], rtol=1e-6)
    # They differ within a channel.
    shape = (2, 2, 2)
    tau = np.linspace(2e-4, 3e-4, 8).reshape(shape)
    written(file, nir.LIF(tau, tau / STEP, *full(0.0, 1.0, 0.0, size=shape)))
    decays = np.moveaxis(only_layer(file, reset="hard").decay, -1, 0)
    assert_allclose(decays, 1.0 - STEP / tau, rtol=1e-6)


def test_another_time_step_can_be_given(file):
    written(file, nir.LIF(*full(4e-3, 4.0, 0.0, 1.0, 0.0)))
    assert only_layer(file, reset="soft", dt=1e-3).decay == 0.75


def test_an_unknown_surrogate_is_named_and_not_run(file):
    metadata = {"reset": "hard", "surrogate": "__import__('os').abort()"}
    written(file, nir.LIF(*full(2e-4, 2.0, 0.0, 1.0, 0.0), metadata=metadata))
    message = "'lif' was trained with the surrogate __import__"
    with pytest.warns(UserWarning, match=message):
        rsnn.import_nir(file, T)


def test_graphs_in_graphs_are_read(file):
    graph = FOREIGN["no leak"]
    for _ in range(2):
        ends = nir.Input(np.array([4])), nir.Output(np.array([4]))
        nodes = {"input": ends[0], "inner": graph, "output": ends[1]}
        graph = nir.NIRGraph(nodes, [("input", "inner"), ("inner", "output")])
    nir.write(file, graph)
    assert only_layer(file, reset="hard").name == "inner_inner"


def test_sum_pooling_is_read(file):
    pool = nir.SumPool2d(*np.array([[2, 2], [2, 2], [0, 0]]))
    neurons = nir.IF(*full(1e4, 5.0, 0.0, size=(1, 2, 2)))
    written(file, nir.Input(np.array([1, 4, 4])), pool, neurons)
    outputs = rsnn.import_nir(file, 2, reset="hard")(np.ones((1, 4, 4, 1)))
    # 4 and 8 after two steps: one spike in two steps, four places.
    assert to_numpy(outputs).sum() == 2.0


# What NIR cannot say.
class OwnCell(rsnn.layers.NeuronCell):
    pass


class OwnDense(layers.Dense):
    def call(self, inputs):
        return -super().call(inputs)


own, CULPRIT = rsnn.layers, {"name": "culprit"}
UNSAYABLE = {
    "MaxPooling2D": layers.MaxPooling2D(2, **CULPRIT),
    "TemporalEffectiveBatchNormalization": own.TemporalEffectiveBatchNormalization(
        4, **CULPRIT
    ),
    "IF": IF(initial_membrane=0.5, **CULPRIT),
    "LIF": LIF(reset_delay=True, **CULPRIT),
    "ALIF": own.ALIF(**CULPRIT),
    "Neuron": own.Neuron(OwnCell(), **CULPRIT),
    "BernoulliEncoder": own.BernoulliEncoder(**CULPRIT),
    "Dense": lambda x: layers.Dense(3, activation="relu", **CULPRIT)(
        layers.Flatten()(x)
    ),
    "OwnDense": lambda x: OwnDense(3, **CULPRIT)(layers.Flatten()(x)),
    "Concatenate": lambda x: layers.Concatenate(**CULPRIT)([x, x]),
    "AveragePooling2D": layers.AveragePooling2D(3, padding="same", **CULPRIT),
    "Add": lambda x: layers.Add(**CULPRIT)(
        [x, layers.GlobalAveragePooling2D(keepdims=True)(x)]
    ),
    "Permute": layers.Permute((2, 1, 3), **CULPRIT),
}
IN_TIME = own.Recurrent
NO_NETWORKS = [
    ((4, 4, 2), lambda x: [LIF()(x), LIF()(x)], "one input and one output"),
    ((4, 4, 2), lambda x: layers.Flatten()(LIF()(x)), "must not end with flattened"),
    (
        (4, 4, 2),
        lambda x: LIF(name="lif")(layers.ZeroPadding2D()(x)),
        "zeros around the input of layer 'lif'",
    ),
    (
        (None, 4, 1),
        lambda x: LIF()(layers.Conv2D(1, 2)(x)),
        "shape of its input",
    ),
    ((4,), IN_TIME(own.ALIF(), layers.Dense(4)), "neurons of ALIFCell"),
    (
        (4,),
        IN_TIME(LIF(), layers.EinsumDense("ab,bc->ac", 4)),
        "through a Dense layer only",
    ),
    (
        (4,),
        IN_TIME(LIF(reset_delay=True), layers.Dense(4)),
        "resets its neuron at once",
    ),
]


@pytest.mark.parametrize("kind", UNSAYABLE)
def test_what_nir_cannot_say_is_named_before_a_file_is_written(kind, file):
    inputs = keras.Input((4, 4, 2))
    network = keras.Model(inputs, LIF()(UNSAYABLE[kind](inputs)))
    with pytest.raises(ValueError, match=f"layer 'culprit' of type {kind}"):
        rsnn.export_nir(network, file)
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(("shape", "call", "message"), NO_NETWORKS)
def test_a_network_of_another_form_is_an_error(shape, call, message, file):
    inputs = keras.Input(shape)
    with pytest.raises(ValueError, match=message):
        rsnn.export_nir(keras.Model(inputs, call(inputs)), file)
    assert not file.exists()


def test_a_file_that_was_there_stays_if_writing_fails(file, monkeypatch):
    network = chain((3,), LIF())
    before = exported(network, file).read_bytes()

    def fail(path, graph):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nir, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        rsnn.export_nir(network, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("nir", lambda path: rsnn.export_nir(chain((3,), LIF()), path)),
        ("h5py", lambda path: rsnn.import_nir(path, 2)),
    ],
)
def test_the_extra_is_named_when_it_is_missing(package, use, file, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'python -m pip install "nir>='):
        use(file)


# Recurrent neurons.
@pytest.mark.parametrize(
    "neuron",
    [
        IF(0.7),
        LIF(0.5, reset="hard"),
        ParametricLIF(0.5, per_channel=True),
        CuBaLIF(0.5),
    ],
)
def test_recurrent_neurons_go_out_and_come_in_again(neuron, file):
    synapse = layers.Dense(8, use_bias=isinstance(neuron, LIF), name="synapse")
    recurrent = rsnn.layers.Recurrent(neuron, synapse, name="neurons")
    last = layers.Dense(3, name="last")
    network = came_back(chain((5,), layers.Dense(8), recurrent, last), file)
    edges = {("neurons", "synapse"), ("synapse", "neurons"), ("neurons", "last")}
    assert edges <= set(nir.read(file).edges)
    assert type(network.get_layer("neurons").neuron) is type(neuron.cell)
