"""NIR files: other libraries read ours with our spikes, we read theirs with their
spikes, and what went out comes in again.

Where another program runs the network, weights and inputs are `dyadic`: membranes are
exact in float32, so that spikes are equal at every step, also those of membranes that
are exactly at the threshold.
"""

import functools
import itertools

import helpers
import keras
import nir
import numpy as np
import pytest
from helpers import BACKEND, assert_close, dyadic, saved_and_loaded, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import IF, LIF, CuBaLIF, LeakyReadout, ParametricLIF

pytestmark = pytest.mark.runs_once

T = 6
STEP = 1e-4


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
    theirs = steps_of_torch(
        import_from_nir(nir.read(exported(network, file))), np.moveaxis(x, -1, 2)
    )
    assert np.unique(ours).size > 15
    np.testing.assert_array_equal(theirs, ours)


def test_an_export_says_which_neurons_some_programs_run_in_another_way(file, capsys):
    for neurons, said in (
        (LIF(0.5, 0.5, reset="hard", decay_input=True, name="n"), False),
        (CuBaLIF(reset="hard", decay_input=True, name="n"), False),
        (IF(reset="hard", name="n"), False),
        (LIF(0.5, decay_input=True, name="n"), True),
        (LIF(0.5, reset="hard", name="n"), True),
        (IF(name="n"), True),
    ):
        exported(
            keras.Sequential(
                [keras.Input((3,)), layers.Dense(2), neurons, layers.Dense(2)]
            ),
            file,
        )
        line = (
            "Some programs run n in another way: see Train for NIR in docs/deploy.md.\n"
        )
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
    np.testing.assert_array_equal(
        steps_of_torch(theirs, np.moveaxis(x, -1, 2)), steps_of(network, x)
    )


@pytest.mark.parametrize(
    ("name", "shape", "scale"),
    [("digits", (8, 8, 1), 16.0), ("fashion_mnist", (28, 28, 1), 255.0)],
)
def test_spikingjelly_reads_the_shipped_networks_with_our_spikes(
    name, shape, scale, file
):
    trained = rsnn.fold_batch_normalization(
        rsnn.models.load_pretrained(name), verbose=False
    ).network
    with helpers.double_precision():
        # In float64 no membrane is so close to its threshold that rounding decides.
        def in_float64(layer):
            return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

        network = keras.models.clone_model(trained, clone_function=in_float64)
        network.set_weights(trained.get_weights())
        *_, last = (layer.output for layer in network.layers if isinstance(layer, LIF))
        x = np.repeat(
            scale * np.random.default_rng(0).random((2, 1, *shape), "float32"),
            4,
            axis=1,
        ).astype("float64")
        theirs = spikingjelly(
            exported(keras.Model(network.inputs, last), file),
            soft=True,
            dtype="float64",
        )
        spikes = steps_of(keras.Model(network.inputs, last), x)
        found = np.moveaxis(steps_of_torch(theirs, np.moveaxis(x, -1, 2)), 2, -1)
        assert 0.02 < spikes.mean() < 0.98
        np.testing.assert_array_equal(found, spikes)
        theirs = spikingjelly(exported(network, file), soft=True, dtype="float64")
        np.testing.assert_allclose(
            steps_of_torch(theirs, np.moveaxis(x, -1, 2)),
            steps_of(network, x),
            atol=1e-5,
        )


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
    inputs = keras.Input((5,))
    first, second = NEURONS[neuron](), NEURONS[neuron]()
    network = keras.Model(
        inputs, second(layers.Dense(6)(first(layers.Dense(8, use_bias=False)(inputs))))
    )
    with_dyadic_weights(
        keras.Sequential(
            [layer for layer in network.layers if isinstance(layer, layers.Dense)]
        )
    )
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
    exact = "Parametric" not in neuron and "learned" not in neuron
    found = loop(
        nir.read(exported(network, file)), x, "soft" in neuron or neuron == "no memory"
    )
    # A sigmoid or an exponential is rounded: a membrane at its threshold may be on
    # either side.
    assert np.mean(found != spikes) <= (0.0 if exact else 0.02)


# Files of other programs.
@pytest.mark.filterwarnings(
    "ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("mechanism", "delay", "arguments"),
    [
        ("zero", False, {"reset": "hard", "reset_delay": False}),
        ("zero", True, {"reset": "hard", "reset_delay": True}),
        ("subtract", True, {"reset": "soft", "reset_delay": True}),
    ],
)
def test_spikes_of_a_file_of_snntorch_are_its_spikes(mechanism, delay, arguments, file):
    import snntorch
    import torch
    from snntorch.export_nir import export_to_nir

    def neuron(kind, size, **decays):
        decays = {name: torch.full((size,), decay) for name, decay in decays.items()}
        threshold = torch.full((size,), 1.0)
        return kind(
            **decays,
            threshold=threshold,
            reset_mechanism=mechanism,
            reset_delay=delay,
            init_hidden=True,
        )

    leaky = neuron(snntorch.Leaky, 8, beta=0.5)
    module = torch.nn.Sequential(
        torch.nn.Linear(5, 8),
        leaky,
        torch.nn.Linear(8, 6),
        neuron(snntorch.Synaptic, 6, alpha=0.5, beta=0.25),
    )
    for seed, parameter in enumerate(module.parameters()):
        if parameter.ndim == 2 or len(parameter) in (6, 8):
            parameter.data = torch.tensor(
                dyadic(tuple(parameter.shape), -0.5, 0.75, seed), dtype=torch.float32
            )
    nir.write(file, export_to_nir(module, torch.zeros(5)))
    x = dyadic((3, T, 5)).astype("float32")
    model = rsnn.import_nir(file, T, **arguments)
    theirs = np.stack(
        [module(torch.tensor(x[:, t])).detach().numpy() for t in range(T)], axis=1
    )
    assert 0.05 < theirs.mean() < 0.95
    np.testing.assert_array_equal(steps_of(model, x), theirs)


def test_a_file_that_looks_like_one_of_snntorch_is_not_silently_read_without_its_delay(
    file,
):
    def single(kind, *values, **kwargs):
        return kind(*(np.full(4, value, "float32") for value in values), **kwargs)

    leaky = single(nir.LIF, 2e-4, 2.0, 0.0, 1.0, 0.0)
    written(
        file,
        leaky,
        single(
            nir.CubaLIF, 2e-4, 2e-4, 2.0, 0.0, 1.0, 0.0, w_in=np.full(4, 2.0, "float32")
        ),
    )
    with pytest.warns(
        UserWarning,
        match=r"looks like one of snnTorch \(neurons_0, neurons_1\).*Pass "
        r"reset_delay=True",
    ):
        model = rsnn.import_nir(file, T, reset="soft")
    assert [layer.reset_delay for layer in model.network.layers[1:]] == [False, False]
    model = rsnn.import_nir(file, T, reset="hard", reset_delay=True)
    # A hard reset of snnTorch's Leaky is never delayed, one of its Synaptic is.
    assert [layer.reset_delay for layer in model.network.layers[1:]] == [False, True]
    for rest_or_gain in ((2e-4, 2.0, 0.5, 1.0, 0.0), (2e-4, 1.0, 0.0, 1.0, 0.0)):
        rsnn.import_nir(
            written(file, single(nir.LIF, *rest_or_gain)), T, reset="hard"
        )  # No warning.


@pytest.mark.parametrize("v_reset", [0.0, -0.25])
def test_spikes_of_a_file_of_spikingjelly_are_its_spikes(v_reset, file):
    import torch
    from spikingjelly.activation_based import functional, layer, neuron, nir_exchange

    torch.manual_seed(0)
    modules = [
        *(
            layer.Conv2d(2, 4, 3, padding=1, bias=False),
            neuron.LIFNode(2.0, v_threshold=0.5, v_reset=v_reset),
        ),
        *(
            layer.Conv2d(4, 4, 3, stride=2, padding=1),
            neuron.ParametricLIFNode(4.0, decay_input=False, v_reset=v_reset),
        ),
        *(
            layer.AvgPool2d(2),
            layer.Flatten(),
            layer.Linear(8, 6),
            neuron.CUBALIFNode(c_decay=0.5, v_decay=0.5, v_reset=0.0),
        ),
        *(layer.Linear(6, 5), neuron.IFNode(v_threshold=0.5, v_reset=0.0)),
    ]
    module = torch.nn.Sequential(*modules)
    for parameter in module.parameters():
        parameter.data = parameter.data * 2.0
    nir_exchange.export_to_nir(module, torch.zeros(1, 2, 8, 4), save_path=file)
    model = rsnn.import_nir(file, T, reset="hard")
    x = np.random.default_rng(0).normal(0.5, 1.0, (3, T, 8, 4, 2)).astype("float32")
    functional.reset_net(module)
    steps = torch.tensor(np.moveaxis(x, -1, 2))
    theirs = np.stack([module(steps[:, t]).detach().numpy() for t in range(T)], axis=1)
    assert 0.05 < theirs.mean() < 0.95
    np.testing.assert_array_equal(steps_of(model, x), theirs)
    found = [
        layer.decay_input
        for layer in model.network.layers
        if isinstance(layer, (LIF, ParametricLIF, CuBaLIF))
    ]
    assert found == [True, False, False]


# Out and in again.
def varied():
    """Layers of all kinds, with other arguments than the defaults."""
    inputs = x = keras.Input((11, 7, 4))
    x = layers.Conv2D(
        4, (3, 2), strides=(2, 1), padding="same", use_bias=False, name="first"
    )(x)
    x = ParametricLIF(
        0.6,
        0.9,
        detach_reset=False,
        per_channel=True,
        surrogate="atan",
        name="parametric",
    )(x)
    x = layers.Conv2D(6, 2, groups=2, dilation_rate=2, name="grouped")(x)
    x = CuBaLIF(
        0.3,
        1.1,
        synaptic_decay=0.7,
        reset="hard",
        v_reset=0.1,
        decay_input=True,
        surrogate=rsnn.surrogates.Gaussian(0.3),
        name="current",
    )(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(
        layers.ZeroPadding2D(1, name="depthwise_padding")(x)
    )
    x = layers.Flatten(name="flat")(
        layers.AveragePooling2D((2, 1), name="pool")(IF(1.5, name="no_leak")(x))
    )
    x = LIF(0.9, learn_threshold=True, name="leaky")(
        layers.Rescaling(0.5, name="leaky_rescaling")(x)
    )
    x = ParametricLIF(0.25, per_channel=True, name="each")(
        layers.Dense(5, name="dense")(x)
    )
    return keras.Model(inputs, layers.Dense(3, use_bias=False, name="readout")(x))


def randomized(network):
    random = np.random.default_rng(0)
    for weight in network.weights:
        if "threshold" not in weight.name:
            weight.assign(random.normal(0.1, 0.4, weight.shape))
    return network


def check_same_layers(found, network):
    assert [layer.name for layer in found.layers[1:]] == [
        layer.name for layer in network.layers[1:]
    ]
    for layer, original in zip(found.layers[1:], network.layers[1:], strict=True):
        assert type(layer) is type(original)
        if hasattr(original, "cell"):
            config = {
                key: value
                for key, value in original.get_config().items()
                if key != "decay"
            }
            assert {
                key: value
                for key, value in layer.get_config().items()
                if key != "decay"
            } == config
            if not isinstance(original, (IF, ParametricLIF)):
                assert layer.decay == original.decay
        assert_close(
            layer.get_weights(),
            original.get_weights(),
            rtol=1e-6,
            atol=1e-6 if hasattr(layer, "cell") else 0.0,
        )


@pytest.mark.on_each_backend
def test_a_file_that_went_out_and_in_again_is_the_same_model(file):
    network = randomized(varied())
    model = rsnn.import_nir(exported(network, file), T, "bptt")
    assert (model.timesteps, type(model.gradient)) == (T, rsnn.gradients.BPTT)
    check_same_layers(model.network, network)
    x = np.random.default_rng(1).normal(0.5, 1.0, (2, T, 11, 7, 4)).astype("float32")
    np.testing.assert_allclose(steps_of(model, x), steps_of(network, x), atol=1e-5)


@pytest.mark.parametrize(
    "readout",
    [
        LeakyReadout(0.9, value="last"),
        LeakyReadout(0.75, decay_input=True, synaptic_decay=0.5, value="max"),
        LeakyReadout(1.0),
    ],
    ids=["LI", "CubaLI", "I"],
)
def test_a_readout_goes_out_and_in_again(readout, file, request):
    inputs = keras.Input((4,))
    network = with_dyadic_weights(
        keras.Model(inputs, readout(layers.Dense(3)(IF()(inputs))))
    )
    found = rsnn.import_nir(exported(network, file, dt=1e-3), T).network
    assert type(nir.read(file).nodes[readout.name]).__name__ == request.node.callspec.id
    check_same_layers(found, network)
    x = dyadic((2, T, 4), 0.0, 2.0, 1)
    np.testing.assert_array_equal(steps_of(found, x), steps_of(network, x))


def test_a_readout_of_another_program_is_that_of_the_equations_of_nir(file):
    """With a gain of 2 and a resting membrane of 0.5."""
    shape, x = np.ones(3), dyadic((2, T, 3), 0.0, 2.0, 1)
    neurons = nir.IF(r=shape / STEP, v_threshold=shape, v_reset=0.0 * shape)
    readout = nir.LI(tau=2 * STEP * shape, r=4.0 * shape, v_leak=0.5 * shape)
    nodes = {
        "input": nir.Input(np.array([3])),
        "if": neurons,
        "li": readout,
        "output": nir.Output(np.array([3])),
    }
    nir.write(
        file, nir.NIRGraph(nodes, [("input", "if"), ("if", "li"), ("li", "output")])
    )
    model = rsnn.import_nir(file, T, reset="hard")
    spikes = steps_of(
        keras.Model(model.network.inputs, model.network.get_layer("if").output), x
    )
    membrane = np.full((2, 3), 0.5)
    for t, found in enumerate(np.moveaxis(steps_of(model, x), 1, 0)):
        membrane = membrane + (0.5 - membrane + 4.0 * spikes[:, t]) / 2
        np.testing.assert_allclose(found, membrane, rtol=1e-6)


def test_networks_of_rows_go_out_and_in_again(file):
    inputs = keras.Input((9, 2))
    x = LIF(name="a")(layers.Conv1D(4, 3, padding="causal", name="causal")(inputs))
    x = LIF(name="b")(layers.Conv1D(4, 4, strides=2, padding="same", name="same")(x))
    x = layers.DepthwiseConv1D(2, name="depthwise")(
        layers.ZeroPadding1D(2, name="depthwise_padding")(x)
    )
    network = randomized(
        keras.Model(
            inputs, layers.Dense(3, name="readout")(layers.Flatten(name="flat")(x))
        )
    )
    model = rsnn.import_nir(exported(network, file), T)
    check_same_layers(model.network, network)
    x = np.random.default_rng(1).normal(0.5, 1.0, (2, T, 9, 2)).astype("float32")
    np.testing.assert_allclose(steps_of(model, x), steps_of(network, x), atol=1e-5)


CONVOLUTIONS = {
    2: (layers.Conv1D, layers.DepthwiseConv1D),
    3: (layers.Conv2D, layers.DepthwiseConv2D),
}


def random_network(random, shape, data_format, convolves):
    """A small network of random neurons; a convolution makes its first or last axis
    that of channels."""
    x = inputs = keras.Input(shape)
    if convolves:
        plain, depthwise = CONVOLUTIONS[len(shape)]
        arguments = {
            "padding": random.choice(["valid", "same"]),
            "data_format": data_format,
        }
        x = (
            depthwise(2, **arguments)(x)
            if random.random() < 0.5
            else plain(3, 2, **arguments)(x)
        )
    for _ in range(2):
        axis = int(random.integers(1, len(shape) + 1))
        neuron = random.choice([IF, LIF, CuBaLIF, ParametricLIF])
        x = (
            ParametricLIF(per_channel=True, axis=axis)
            if neuron is ParametricLIF
            else neuron()
        )(x)
    x = layers.Flatten(data_format=random.choice(["channels_first", "channels_last"]))(
        x
    )
    x = ParametricLIF(per_channel=True)(layers.Dense(4)(x))
    return randomized(keras.Model(inputs, layers.Dense(3)(x)))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("axes", "convolves"),
    [(1, False), (2, False), (2, True), (3, False), (3, True), (4, False)],
    ids="{}".format,
)
def test_networks_of_any_number_of_axes_keep_their_inputs_and_outputs(
    axes, convolves, data_format, file
):
    if convolves and data_format == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels_first convolutions on a CPU")
    keras.config.set_image_data_format(data_format)
    for seed in range(3):
        random = np.random.default_rng(seed)
        # Equal axes as well: then a transposed network would raise no error.
        shape = (
            (3,) * axes
            if seed == 0
            else tuple(int(size) for size in random.integers(2, 5, axes))
        )
        network = random_network(random, shape, data_format, convolves)
        model = rsnn.import_nir(exported(network, file), T)
        assert model.network.input_shape == network.input_shape
        x = random.normal(0.5, 1.0, (2, T, *shape)).astype("float32")
        np.testing.assert_allclose(
            steps_of(model, x), steps_of(network, x), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("size", [3, 5])
def test_channels_of_a_signal_that_is_no_image_are_refused(size, file):
    """NIR has channels first: equal axes would be mixed up without an error."""
    for kind in (functools.partial(layers.Dense, 4), layers.BatchNormalization):
        inputs = keras.Input((size, 3))
        x = kind(name="culprit")(LIF()(inputs))
        x = layers.Flatten()(LIF()(x))
        network = keras.Model(inputs, layers.Dense(2)(x))
        with pytest.raises(ValueError, match=r"layer 'culprit'.*Flatten it"):
            exported(network, file)


@pytest.mark.on_each_backend
def test_a_network_goes_out_and_in_again_in_the_precision_that_it_has(file):
    with helpers.double_precision():
        network = convolutional(lambda: LIF(0.9, 0.3))
        for weight in network.weights:
            weight.assign(np.random.default_rng(0).normal(0.0, 0.5, weight.shape))
        model = rsnn.import_nir(exported(network, file), T)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(model.get_weights(), network.get_weights(), strict=True)
        )
        assert [
            layer.threshold for layer in model.network.layers if isinstance(layer, LIF)
        ] == [0.3] * 3
    keras.config.set_dtype_policy("mixed_bfloat16")
    halves = rsnn.import_nir(exported(convolutional(lambda: LIF(0.9, 0.3)), file), T)
    assert {
        layer.threshold for layer in halves.network.layers if isinstance(layer, LIF)
    } == {0.3}


def nodes(path):
    return nir.read(path, type_check=False).nodes


def of_images(data_format, shape, axis):
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, strides=2, padding="same", data_format=data_format)(inputs)
    x = layers.AveragePooling2D(2, data_format=data_format)(
        ParametricLIF(per_channel=True, axis=axis)(x)
    )
    x = layers.Flatten(data_format=data_format)(x)
    return randomized(
        keras.Model(inputs, layers.Dense(3)(ParametricLIF(per_channel=True)(x)))
    )


def test_images_with_channels_first_are_the_same_file(tmp_path):
    last = nodes(
        exported(of_images("channels_last", (9, 7, 2), -1), tmp_path / "last.nir")
    )
    first = nodes(
        exported(of_images("channels_first", (2, 9, 7), 1), tmp_path / "first.nir")
    )
    assert (
        first["input"].input_type["input"].tolist()
        == last["input"].input_type["input"].tolist()
        == [2, 9, 7]
    )
    for name in ("conv2d", "parametric_lif", "parametric_lif_1", "dense"):
        counterpart = {
            "conv2d": "conv2d_1",
            "parametric_lif": "parametric_lif_2",
            "parametric_lif_1": "parametric_lif_3",
        }
        for key in ("weight", "bias", "tau"):
            if hasattr(last[name], key):
                other = first[counterpart.get(name, "dense_1")]
                np.testing.assert_allclose(
                    getattr(other, key), getattr(last[name], key), rtol=1e-5
                )


@pytest.mark.on_each_backend
@pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="TensorFlow has no channels_first convolutions on a CPU",
)
def test_a_file_can_be_read_with_channels_first(file):
    network = of_images("channels_last", (9, 7, 2), -1)
    model = rsnn.import_nir(exported(network, file), T, data_format="channels_first")
    x = np.random.default_rng(1).normal(0.5, 1.0, (2, T, 9, 7, 2)).astype("float32")
    found = steps_of(model, np.moveaxis(x, -1, 2))
    np.testing.assert_allclose(found, steps_of(network, x), atol=1e-5)


def test_an_image_without_convolutions_has_channels_first_as_well(file):
    network = keras.Sequential(
        [keras.Input((2, 3, 4)), layers.Flatten(), layers.Dense(5), LIF()]
    )
    found = nodes(exported(network, file))
    assert found["input"].input_type["input"].tolist() == [4, 2, 3]
    kernel = network.layers[1].get_weights()[0].reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(
        found["dense"].weight, np.moveaxis(kernel, 2, 0).reshape(24, 5).T
    )


def test_all_forms_of_a_network_are_the_same_file(tmp_path):
    block = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, name="a"), LIF(name="b")], name="block"
    )
    nested = keras.Sequential(
        [keras.Input((6,)), block, layers.Dropout(0.5), layers.Dense(3, name="c")]
    )
    inputs = keras.Input((6,))
    functional = keras.Model(
        inputs, nested.layers[-1](block.layers[1](block.layers[0](inputs)))
    )
    files = []
    for number, network in enumerate((nested, functional, spiking(nested))):
        found = nir.read(exported(network, tmp_path / f"{number}.nir"))
        values = {
            name: {
                key: np.asarray(value).tolist()
                for key, value in vars(node).items()
                if key != "metadata"
            }
            for name, node in found.nodes.items()
        }
        files.append((sorted(found.edges), repr(values)))
    assert files[0] == files[1] == files[2]
    assert files[0][0] == [("a", "b"), ("b", "c"), ("c", "output"), ("input", "a")]


def test_sums_and_factors_become_edges_and_weights(file):
    inputs = keras.Input((4,))
    x = LIF(name="a")(layers.Rescaling(2.0, offset=0.5)(inputs))
    y = layers.Dense(4, name="b")(layers.Rescaling(3.0)(x))
    x = layers.Rescaling(0.5, name="half")(x) + y + y
    network = with_dyadic_weights(
        keras.Model(inputs, layers.Dense(2, name="c")(LIF(name="d")(x)))
    )
    x = dyadic((3, T, 4))
    found = nir.read(exported(network, file))
    assert (
        len([node for node in found.nodes.values() if isinstance(node, nir.Scale)]) == 2
    )
    np.testing.assert_array_equal(
        steps_of(rsnn.import_nir(file, T), x), steps_of(network, x)
    )


def test_weight_standardised_layers_are_written_with_the_kernels_that_they_use(file):
    inputs = keras.Input((5, 5, 2))
    x = LIF()(rsnn.layers.WSConv2D(3, 3, padding="same")(inputs))
    x = LIF()(rsnn.layers.WSDense(4)(layers.Flatten()(layers.Rescaling(2.74)(x))))
    network = randomized(keras.Model(inputs, layers.Dense(2)(x)))
    x = np.random.default_rng(1).normal(0.5, 1.0, (2, T, 5, 5, 2)).astype("float32")
    np.testing.assert_allclose(
        steps_of(rsnn.import_nir(exported(network, file), T), x),
        steps_of(network, x),
        atol=1e-4,
    )


def test_a_small_resnet_goes_out_and_in_again(file):
    inputs = keras.Input((6, 6, 3))
    x = LIF(reset="hard")(
        layers.BatchNormalization()(
            layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
        )
    )
    y = layers.ZeroPadding2D(1)(x)
    y = LIF()(
        layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, use_bias=False)(y))
    )
    y = layers.BatchNormalization()(
        layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
    )
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, strides=2, use_bias=False)(x))
    x = layers.GlobalAveragePooling2D()(LIF()(layers.Add()([x, y])))
    network = keras.Model(inputs, layers.Dense(3)(x))
    folded = rsnn.fold_batch_normalization(network, verbose=False)
    x = np.random.default_rng(1).normal(0.5, 1.0, (2, T, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(
        steps_of(rsnn.import_nir(exported(network, file), T), x),
        steps_of(folded, x),
        atol=1e-5,
    )


@pytest.mark.on_each_backend
def test_an_imported_model_can_be_trained_and_saved(file):
    model = rsnn.import_nir(exported(convolutional(LIF), file), 3)
    helpers.compiled(model)
    x, y = helpers.data(8, (8, 6, 2))
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    loaded = saved_and_loaded(model)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)


# What the metadata says.
def test_metadata_say_how_neurons_are_reset_and_the_time_step(file):
    network = keras.Sequential(
        [
            keras.Input((3,)),
            LIF(0.75, surrogate=rsnn.surrogates.ATan(3.0), name="neurons"),
        ]
    )
    node = nodes(exported(network, file, dt=1e-3))["neurons"]
    assert (
        node.metadata["reset"],
        node.metadata["dt"],
        node.metadata["surrogate"],
    ) == ("soft", 1e-3, "ATan(alpha=3.0)")
    np.testing.assert_allclose(
        (node.tau, node.r), np.broadcast_to([[4e-3], [4.0]], (2, 3))
    )
    np.testing.assert_array_equal(node.v_reset, np.zeros(3))
    for argument in ({"reset": "hard"}, {"dt": 1e-4}, {"reset_delay": True}):
        with pytest.raises(
            ValueError, match="node 'neurons' of type LIF: its metadata says"
        ):
            rsnn.import_nir(file, 2, **argument)
    assert (
        rsnn.import_nir(file, 2, reset="soft", dt=1e-3).network.layers[1].decay == 0.75
    )


def written(path, *neurons, **kwargs):
    """A file of neurons in a chain, as another program writes it."""
    size = len(neurons[0].v_threshold)
    names = ["input", *(f"neurons_{i}" for i in range(len(neurons))), "output"]
    parts = [nir.Input(np.array([size])), *neurons, nir.Output(np.array([size]))]
    edges = list(itertools.pairwise(names))
    nir.write(path, nir.NIRGraph(dict(zip(names, parts, strict=True)), edges, **kwargs))
    return path


def full(*values, size=4):
    return [np.full(size, value) for value in values]


FOREIGN = {
    "gain": lambda: nir.LIF(*full(2e-4, 1.0, 0.0, 0.375, 0.0)),
    "rest": lambda: nir.LIF(*full(2e-4, 2.0, 0.25, 1.0, -0.25)),
    "no leak": lambda: nir.IF(*full(2e4, 1.5, 0.5)),
    "current": lambda: nir.CubaLIF(
        *full(2e-4, 4e-4 / 3, 1.5, 0.0, 0.875, 0.125), w_in=1.0
    ),
}


@pytest.mark.parametrize("node", FOREIGN)
def test_factors_of_the_input_and_membranes_at_rest_are_converted(node, file):
    graph = nir.read(written(file, FOREIGN[node]()))
    model = rsnn.import_nir(file, T, reset="hard")
    x = dyadic((5, T, 4), -1.0, 3.0)
    spikes = steps_of(model, x)
    assert 0.05 < spikes.mean() < 0.95
    if node == "rest":
        # The loop starts at 0: let it start where the neurons rest.
        x, graph.nodes["neurons_0"] = x, nir.LIF(*full(2e-4, 2.0, 0.0, 0.75, -0.5))
    assert np.mean(loop(graph, x) != spikes) < 0.01


def test_a_reset_above_the_threshold_names_the_node(file):
    with pytest.raises(
        ValueError,
        match="node 'neurons_0' of type LIF: its v_reset is above its threshold",
    ):
        rsnn.import_nir(
            written(file, nir.LIF(*full(2e-4, 2.0, 0.0, 1.0, 1.5))), T, reset="hard"
        )


def test_values_of_channels_and_neurons_go_out_and_in_again(file):
    """Also where features are flattened in another order, and of neurons that learn
    them."""
    inputs = x = keras.Input((3, 2, 4))
    halves = np.resize([0.25, 0.5, 0.75], (3, 2, 4))
    x = LIF(
        [0.25, 0.5, 0.75, 0.5],
        halves + 0.25,
        reset="hard",
        v_reset=-halves,
        name="image",
    )(layers.Conv2D(4, 1)(x))
    x = CuBaLIF(
        0.5, np.linspace(0.5, 2.0, 24), synaptic_decay=halves.ravel(), name="flat"
    )(layers.Flatten()(x))
    x = LIF(
        [0.5, 0.25, 0.75],
        [0.5, 1.0, 1.5],
        learn_threshold=True,
        learn_decay=True,
        name="learned",
    )(layers.Dense(3)(x))
    x = LeakyReadout(
        [0.5, 0.25], synaptic_decay=[0.5, 0.75], learn_decay=True, name="readout"
    )(layers.Dense(2)(x))
    network = keras.Model(inputs, x)
    with_dyadic_weights(
        keras.Sequential(
            [
                layer
                for layer in network.layers
                if isinstance(layer, (layers.Dense, layers.Conv2D))
            ]
        )
    )
    model = rsnn.import_nir(exported(network, file), T)
    steps = dyadic((2, T, 3, 2, 4), 0.0, 2.0, 1)
    np.testing.assert_allclose(
        steps_of(model, steps), steps_of(network, steps), rtol=1e-4, atol=1e-4
    )
    for name in ("image", "flat", "learned", "readout"):
        found, original = (of.get_layer(name) for of in (model.network, network))
        assert type(found) is type(original)
        assert len(found.trainable_weights) == len(original.trainable_weights)
        for argument in ("decay", "threshold", "v_reset", "synaptic_decay"):
            if hasattr(original, argument):
                expected = getattr(original, argument)
                np.testing.assert_allclose(
                    getattr(found, argument),
                    expected,
                    rtol=1e-6,
                    err_msg=f"{name}, {argument}",
                )


def test_decays_that_differ_within_a_channel_are_those_of_neurons(file):
    tau = np.linspace(2e-4, 3e-4, 8).reshape(2, 2, 2)
    shape = np.ones((2, 2, 2))
    parts = {
        "input": nir.Input(np.array([2, 2, 2])),
        "output": nir.Output(np.array([2, 2, 2])),
    }
    parts["lif"] = nir.LIF(
        tau=tau,
        r=tau / STEP,
        v_leak=0.0 * shape,
        v_threshold=shape,
        v_reset=0.0 * shape,
    )
    nir.write(file, nir.NIRGraph(parts, [("input", "lif"), ("lif", "output")]))
    (layer,) = rsnn.import_nir(file, T, reset="hard").network.layers[1:]
    np.testing.assert_allclose(
        np.moveaxis(layer.decay, -1, 0), 1.0 - STEP / tau, rtol=1e-6
    )


def test_time_constants_of_channels_are_those_of_parametric_neurons(file):
    tau = np.array([2e-4, 4e-4, 2e-4, 1e-3])
    model = rsnn.import_nir(
        written(file, nir.LIF(tau, tau / STEP, *full(0.0, 1.0, 0.0))), T, reset="hard"
    )
    (layer,) = model.network.layers[1:]
    np.testing.assert_allclose(
        to_numpy(layer.cell.effective_decay())[0], [0.5, 0.75, 0.5, 0.9], rtol=1e-6
    )


@pytest.mark.parametrize("threshold", [0.0, 1e-300])
def test_a_threshold_that_is_zero_in_the_dtype_of_the_membrane_is_refused(
    threshold, file
):
    node = nir.LIF(*full(2e-4, 2.0, 0.0, threshold, 0.0))
    with pytest.raises(
        ValueError,
        match=r"node 'neurons_0' of type LIF: its v_threshold is .* In float32 .* "
        r"rounded to 0",
    ):
        rsnn.import_nir(written(file, node), T, reset="hard")


def test_another_time_step_can_be_given(file):
    node = nir.LIF(*full(4e-3, 4.0, 0.0, 1.0, 0.0))
    assert (
        rsnn.import_nir(written(file, node), T, reset="soft", dt=1e-3)
        .network.layers[1]
        .decay
        == 0.75
    )


def test_an_unknown_surrogate_is_named_and_not_run(file):
    node = nir.LIF(
        *full(2e-4, 2.0, 0.0, 1.0, 0.0),
        metadata={"reset": "hard", "surrogate": "__import__('os').abort()"},
    )
    with pytest.warns(
        UserWarning, match="'neurons_0' was trained with the surrogate __import__"
    ):
        rsnn.import_nir(written(file, node), T)


def test_graphs_in_graphs_are_read(file):
    def graph(inner):
        names = {
            "input": nir.Input(np.array([4])),
            "inner": inner,
            "output": nir.Output(np.array([4])),
        }
        return nir.NIRGraph(names, [("input", "inner"), ("inner", "output")])

    nir.write(file, graph(graph(FOREIGN["no leak"]())))
    network = rsnn.import_nir(file, T, reset="hard").network
    assert [layer.name for layer in network.layers] == ["input", "inner_inner"]


def test_sum_pooling_is_read(file):
    pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    parts = {
        "input": nir.Input(np.array([1, 4, 4])),
        "pool": pool,
        "output": nir.Output(np.array([1, 2, 2])),
    }
    parts["neurons"] = nir.IF(*(np.full((1, 2, 2), value) for value in (1e4, 5.0, 0.0)))
    nir.write(
        file,
        nir.NIRGraph(
            parts, [("input", "pool"), ("pool", "neurons"), ("neurons", "output")]
        ),
    )
    model = rsnn.import_nir(file, 2, reset="hard")
    assert (
        to_numpy(model(np.ones((1, 4, 4, 1)))).sum() == 2.0
    )  # 4 and 8 after two steps: one spike in two steps, four places.


# What NIR cannot say.
class OwnCell(rsnn.layers.NeuronCell):
    pass


class OwnDense(layers.Dense):
    def call(self, inputs):
        return -super().call(inputs)


UNSAYABLE = {
    "MaxPooling2D": lambda x: layers.MaxPooling2D(2, name="culprit")(x),
    "TemporalEffectiveBatchNormalization": lambda x: (
        rsnn.layers.TemporalEffectiveBatchNormalization(4, name="culprit")(x)
    ),
    "IF": lambda x: IF(initial_membrane=0.5, name="culprit")(x),
    "LIF reset later": lambda x: LIF(reset_delay=True, name="culprit")(x),
    "ALIF": lambda x: rsnn.layers.ALIF(name="culprit")(x),
    "Neuron": lambda x: rsnn.layers.Neuron(OwnCell(), name="culprit")(x),
    "BernoulliEncoder": lambda x: rsnn.layers.BernoulliEncoder(name="culprit")(x),
    "Dense": lambda x: layers.Dense(3, activation="relu", name="culprit")(
        layers.Flatten()(x)
    ),
    "OwnDense": lambda x: OwnDense(3, name="culprit")(layers.Flatten()(x)),
    "Concatenate": lambda x: layers.Concatenate(name="culprit")([x, x]),
    "AveragePooling2D": lambda x: layers.AveragePooling2D(
        3, padding="same", name="culprit"
    )(x),
    "Add": lambda x: layers.Add(name="culprit")(
        [x, layers.GlobalAveragePooling2D(keepdims=True)(x)]
    ),
    "Permute": lambda x: layers.Permute((2, 1, 3), name="culprit")(x),
}


SAYABLE = {
    "normalisation after pooling": lambda x: layers.BatchNormalization()(
        layers.AveragePooling2D(2)(x)
    ),
    "normalisation of a sum": lambda x: layers.BatchNormalization()(
        layers.Add()([layers.Conv2D(3, 1)(x), layers.Conv2D(3, 1)(x)])
    ),
    "a dense layer at each place": lambda x: layers.Dense(3)(x),
    "a scale for each channel": lambda x: layers.Rescaling([1.0, 2.0], [0.5, 0.0])(x),
    "a shape of one axis": lambda x: layers.Dense(4)(layers.Reshape((32,))(x)),
}


@pytest.mark.parametrize("name", SAYABLE)
def test_what_is_lowered_to_other_layers_comes_in_again(name, file):
    inputs = keras.Input((4, 4, 2))
    y = layers.Flatten()(IF()(SAYABLE[name](inputs)))
    network = with_dyadic_weights(keras.Model(inputs, layers.Dense(3)(y)))
    for weight in network.weights:
        if "variance" in weight.name:
            weight.assign(np.full(weight.shape, 1.0))
    x = np.random.default_rng(0).random((8, T, 4, 4, 2), "float32")
    back = rsnn.import_nir(exported(network, file), T)
    assert_close(
        back.predict(x, verbose=0),
        spiking(network, T, "bptt").predict(x, verbose=0),
        atol=1e-4,
    )


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_nir_cannot_say_is_named_before_a_file_is_written(name, tmp_path):
    inputs = keras.Input((4, 4, 2))
    network = keras.Model(inputs, LIF()(UNSAYABLE[name](inputs)))
    with pytest.raises(ValueError, match=f"layer 'culprit' of type {name.split()[0]}"):
        rsnn.export_nir(network, tmp_path / "network.nir")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda x: keras.Model(x, [LIF()(x), LIF()(x)]), "one input and one output"),
        (
            lambda x: keras.Model(x, layers.Flatten()(LIF()(x))),
            "must not end with flattened",
        ),
        (
            lambda x: keras.Model(x, LIF()(layers.ZeroPadding2D()(x))),
            "zeros around the input of layer 'lif'",
        ),
        (
            lambda x: keras.Sequential(
                [keras.Input((None, 4, 1)), layers.Conv2D(1, 2), LIF()]
            ),
            "shape of its input",
        ),
    ],
)
def test_a_network_of_another_form_is_an_error(network, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        rsnn.export_nir(network(keras.Input((4, 4, 2))), tmp_path / "network.nir")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_if_writing_fails(file, monkeypatch):
    network = keras.Sequential([keras.Input((3,)), LIF()])
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
    ("package", "function"), [("nir", "export_nir"), ("h5py", "import_nir")]
)
def test_the_extra_is_named_when_it_is_missing(package, function, file, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    argument = keras.Sequential([keras.Input((3,)), LIF()])
    with pytest.raises(ImportError, match=r'python -m pip install "nir>='):
        rsnn.export_nir(
            argument, file
        ) if function == "export_nir" else rsnn.import_nir(file, 2)


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
    inputs = keras.Input((5,))
    synapse = layers.Dense(8, use_bias=isinstance(neuron, LIF), name="synapse")
    x = rsnn.layers.Recurrent(neuron, synapse, name="neurons")(layers.Dense(8)(inputs))
    network = with_dyadic_weights(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    graph = nir.read(exported(network, file))
    assert {("neurons", "synapse"), ("synapse", "neurons"), ("neurons", "last")} <= set(
        graph.edges
    )
    again = rsnn.import_nir(file, T)
    assert type(again.network.get_layer("neurons").neuron) is type(neuron.cell)
    x = dyadic((3, T, 5)).astype("float32")
    np.testing.assert_allclose(steps_of(again, x), steps_of(network, x), rtol=1e-6)


@pytest.mark.filterwarnings(
    "ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("mechanism", "reset"), [("subtract", "soft"), ("zero", "hard")]
)
@pytest.mark.parametrize("kind", ["RLeaky", "RSynaptic"])
def test_spikes_of_recurrent_neurons_are_snntorchs_and_their_delay_is_asked_for(
    kind, mechanism, reset, file
):
    import snntorch
    import torch
    from snntorch.export_nir import export_to_nir

    decays = {"beta": 0.5} | ({"alpha": 0.25} if kind == "RSynaptic" else {})
    decays = {name: torch.full((8,), decay) for name, decay in decays.items()}
    arguments = {
        "linear_features": 8,
        "reset_mechanism": mechanism,
        "init_hidden": True,
    }
    neurons = getattr(snntorch, kind)(
        **decays, threshold=torch.full((8,), 1.0), **arguments
    )
    module = torch.nn.Sequential(torch.nn.Linear(5, 8), neurons)
    for seed, part in enumerate(
        (
            module[0].weight,
            module[0].bias,
            neurons.recurrent.weight,
            neurons.recurrent.bias,
        )
    ):
        part.data = torch.tensor(
            dyadic(tuple(part.shape), -0.5, 0.75, seed), dtype=torch.float32
        )
    nir.write(file, export_to_nir(module, torch.zeros(5)))
    with pytest.warns(
        UserWarning,
        match=r"looks like one of snnTorch \(.*lif\).*Pass reset_delay=True",
    ):
        rsnn.import_nir(file, T, reset=reset)
    model = rsnn.import_nir(file, T, reset=reset, reset_delay=True)
    x = dyadic((3, T, 5)).astype("float32")
    theirs = np.stack(
        [module(torch.tensor(x[:, t])).detach().numpy() for t in range(T)], axis=1
    )
    assert 0.05 < theirs.mean() < 0.95
    np.testing.assert_array_equal(steps_of(model, x), theirs)


def test_recurrent_neurons_that_nir_cannot_describe_are_refused(file):
    inputs = keras.Input((4,))
    for neuron, synapse, message in (
        (rsnn.layers.ALIF(), layers.Dense(4), "neurons of ALIFCell"),
        (LIF(), layers.EinsumDense("ab,bc->ac", 4), "through a Dense layer only"),
        (LIF(reset_delay=True), layers.Dense(4), "resets its neuron at once"),
    ):
        with pytest.raises(ValueError, match=message):
            rsnn.export_nir(
                keras.Model(inputs, rsnn.layers.Recurrent(neuron, synapse)(inputs)),
                file,
            )
    assert not file.exists()
