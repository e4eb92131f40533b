"""The interface of training methods: a custom method is one class."""

import keras
import numpy as np
import pytest
from helpers import (
    CROSSENTROPY,
    assert_close,
    both_step_modes,
    chain,
    data,
    loss_and_gradients,
    mlp,
    spiking,
    to_numpy,
)
from keras import ops

import keras_ratesnn as rsnn
from keras_ratesnn import gradients


class HalfGradient(gradients.GradientMethod):
    def call(self, run):
        assert isinstance(run, gradients.extend.Run)
        outputs = gradients.BPTT().call(run)
        return gradients.extend.graft(ops.stop_gradient(outputs), outputs, 0.5)


@both_step_modes
def test_a_custom_method_is_one_class(step_mode):
    network = mlp()
    (loss, found), (expected_loss, expected) = (
        loss_and_gradients(spiking(network, 3, method, step_mode=step_mode), *data())
        for method in (HalfGradient(), "bptt")
    )
    assert loss == pytest.approx(expected_loss)
    expected = {path: 0.5 * gradient for path, gradient in expected.items()}
    assert_close(found, expected, rtol=1e-5)


class DoubledSpikes(gradients.extend.NeuronHandler):
    """Doubles spikes, and takes notes of the shapes of spikes and of the current."""

    def emitted(self, spikes, inputs, t):
        SEEN.append((tuple(spikes.shape), tuple(inputs[0].shape)))
        return 2.0 * spikes


class Doubled(gradients.extend.LoopedHandler):
    """Counts the spikes so far, and doubles them; takes notes of the number of its
    inputs."""

    def start(self, inputs):
        return (ops.zeros_like(inputs[0]),)

    def advance(self, state, inputs, phase):
        SEEN.append(len(inputs))
        return (state[0] + inputs[0],), [2.0 * inputs[0]]


SEEN = []


def method_of(nodes):
    """BPTT with other nodes."""

    class Method(gradients.GradientMethod):
        def call(self, run):
            return gradients.extend.plain(run, nodes)

    return Method()


@both_step_modes
@pytest.mark.parametrize(
    ("nodes", "seen"),
    [
        # A row of the current for each spike, also where it is the same at every step.
        (
            gradients.extend.with_neurons(DoubledSpikes),
            {"multi": {((30, 8), (30, 8))}, "single": {((10, 8), (10, 8))}},
        ),
        # Spikes and current.
        (gradients.extend.after_neurons(Doubled), {"multi": {2}, "single": {2}}),
    ],
)
def test_handlers_of_and_after_neurons_change_what_others_read(nodes, seen, step_mode):
    network, (x, _) = mlp(), data()
    SEEN.clear()
    model = spiking(network, 3, method_of(nodes), step_mode=step_mode)
    found = to_numpy(model(x))
    network.layers[-1].kernel.assign(2.0 * network.layers[-1].kernel)
    expected = to_numpy(spiking(network, 3, "bptt")(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert set(SEEN) == seen[step_mode]


def test_inference_makes_no_rate_pass():
    """The run says whether outputs will be differentiated."""
    runs = []

    class Noting(gradients.Rate):
        def call(self, run):
            runs.append((run.training, run.with_gradient))
            return super().call(run)

    model = spiking(gradient=Noting())
    model.compile("sgd", CROSSENTROPY)
    x, y = data()
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    # With gradient it is at most traced, by a backend that builds the model first.
    assert (False, False) in runs
    assert len([run for run in runs if run != (False, False)]) <= 1
    model.fit(x, y, verbose=0)
    assert (True, True) in runs


class MixingCell(rsnn.layers.NeuronCell):
    """Neurons that receive each other's last spikes through weights that start at
    zero."""

    def build(self, input_shape):
        shape = (input_shape[-1], input_shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer="zeros", name="kernel")

    def initial_state(self, inputs):
        rest = super().initial_state(inputs)
        return rest, rest

    def step(self, inputs, state):
        membrane, spikes = state
        membrane = 0.5 * membrane + inputs + ops.matmul(spikes, self.kernel)
        spikes = self.fire(membrane)
        return membrane, spikes, (membrane - ops.stop_gradient(spikes), spikes)


class NeighbourCell(rsnn.layers.NeuronCell):
    """Neurons with the weight of another one."""

    def build(self, input_shape):
        self.gain = self.add_weight(shape=(input_shape[-1],), name="gain")

    def step(self, inputs, state):
        membrane = 0.5 * state + inputs * ops.roll(self.gain, 1)
        return membrane, self.fire(membrane), membrane


class MeanCell(rsnn.layers.NeuronCell):
    """Neurons that are inhibited by the mean of all neurons of their sample."""

    def step(self, inputs, state):
        membrane = 0.5 * state + inputs
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - ops.mean(spikes, axis=-1, keepdims=True)


class NoisyCell(rsnn.layers.NeuronCell):
    """Neurons with noise that Keras does not draw."""

    numbers = np.random.default_rng(0)

    def step(self, inputs, state):
        noise = self.numbers.normal(size=inputs.shape[-1])
        membrane = 0.5 * state + inputs + ops.convert_to_tensor(noise, inputs.dtype)
        return membrane, self.fire(membrane), membrane


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (MixingCell, "'kernel'"),
        (NeighbourCell, "mixes neurons in its step: weight 'gain'"),
        (MeanCell, "mixes"),
        (NoisyCell, "gives other outputs(?s:.)*keras.random"),
    ],
)
def test_a_cell_that_mixes_neurons_trains_by_bptt_and_not_by_rate(cell, message):
    """Nor does one whose noise Keras does not draw, which has a reason of its own."""
    network = chain(rsnn.layers.Neuron(cell(), name="hidden"))
    with pytest.raises(ValueError, match=message) as raised:
        spiking(network)
    for part in (cell.__name__, "'hidden'", 'gradient="bptt"'):
        assert part in str(raised.value)
    assert cell is not NoisyCell or "mixes" not in str(raised.value)
    model, x = spiking(network, gradient="bptt"), data()[0]
    value, _ = loss_and_gradients(model, x, x, keras.losses.MeanSquaredError())
    assert np.isfinite(value)


class BeginsWithANumber(Doubled):
    def start(self, inputs):
        return (0.5,)


class Widens(Doubled):
    def start(self, inputs):
        return (ops.zeros(()),)


class ReturnsATensor(Doubled):
    def advance(self, state, inputs, phase):
        state, outputs = super().advance(state, inputs, phase)
        return state, outputs[0]


class ReturnsTwo(gradients.extend.Handler):
    def step(self, state, inputs, t):
        return (), [inputs[0], inputs[0]]


def read_too_early(calls, context):
    """The nodes of a network; before each with neurons one that reads its spikes."""
    for node in gradients.extend.plain_nodes(calls, context):
        if isinstance(node.handler, gradients.extend.NeuronHandler):
            doubled = Doubled(node.handler.call, context)
            yield gradients.extend.Node(doubled, [-1], node.outputs)
            node = node._replace(outputs=[-1])
        yield node


@pytest.mark.parametrize(
    ("nodes", "error", "finding"),
    [
        (
            gradients.extend.after_neurons(gradients.extend.Handler),
            NotImplementedError,
            "Handler must implement `step",
        ),
        (
            gradients.extend.after_neurons(gradients.extend.LoopedHandler),
            NotImplementedError,
            "LoopedHandler must implement `advance",
        ),
        (
            gradients.extend.after_neurons(BeginsWithANumber),
            TypeError,
            r"BeginsWithANumber must consist of tensors.*Received: 0\.5",
        ),
        (
            gradients.extend.after_neurons(Widens),
            TypeError,
            r"Widens must keep its structure, shapes.*\(\(10, 8\),\) after \(\(\),\)",
        ),
        (
            gradients.extend.after_neurons(ReturnsATensor),
            TypeError,
            r"ReturnsATensor.advance must return `\(state, outputs\)`",
        ),
        (
            gradients.extend.after_neurons(ReturnsTwo),
            TypeError,
            r"each of the 1 slots.*length 2 from a node with a ReturnsTwo of layer",
        ),
        (
            read_too_early,
            ValueError,
            r"come after those whose slots it reads. Received: a node with a Doubled "
            r"of layer '.*', which reads \[-1\]",
        ),
    ],
    ids=["step", "advance", "number", "shape", "tensor", "two", "order"],
)
def test_an_error_names_the_node_or_handler_that_cannot_run(nodes, error, finding):
    model = spiking(mlp(), 3, method_of(nodes), step_mode="single")
    with pytest.raises(error, match=finding):
        model(data()[0])
