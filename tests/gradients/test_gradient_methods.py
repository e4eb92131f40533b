"""The interface of training methods: a custom method is one class."""

import keras
import numpy as np
import pytest
from helpers import assert_close, data, loss_and_gradients, mlp, spiking, to_numpy
from keras import ops

import keras_ratesnn as rsnn
from keras_ratesnn import gradients


class HalfGradient(gradients.GradientMethod):
    def call(self, run):
        assert isinstance(run, gradients.Run)
        outputs = gradients.BPTT().call(run)
        return gradients.graft(ops.stop_gradient(outputs), outputs, 0.5)


class DoubledSpikes(gradients.NeuronHandler):
    """Doubles spikes, and takes notes of their shapes."""

    def emitted(self, spikes, inputs, t):
        seen.append(tuple(spikes.shape))
        return 2.0 * spikes


seen = []


class Doubling(gradients.GradientMethod):
    def call(self, run):
        return gradients.plain(run, gradients.with_neurons(DoubledSpikes))


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_custom_method_is_one_class(step_mode):
    x, y = data()
    network = mlp()
    loss, found = loss_and_gradients(
        spiking(network, gradient=HalfGradient(), step_mode=step_mode), x, y
    )
    expected_loss, expected = loss_and_gradients(
        spiking(network, gradient="bptt", step_mode=step_mode), x, y
    )
    assert loss == pytest.approx(expected_loss)
    for path, gradient in found.items():
        np.testing.assert_allclose(
            gradient, 0.5 * expected[path], rtol=1e-5, err_msg=path
        )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_custom_handler_changes_an_operation_and_sees_each_step(step_mode):
    x, _ = data()
    network, method = mlp(), Doubling()
    seen.clear()
    outputs = ops.convert_to_numpy(spiking(network, 3, method, step_mode=step_mode)(x))
    network.layers[-1].kernel.assign(2.0 * network.layers[-1].kernel)
    np.testing.assert_allclose(
        outputs, ops.convert_to_numpy(spiking(network, 3, "bptt")(x)), rtol=1e-5
    )
    hidden = network.layers[-1].kernel.shape[0]
    assert seen == ([(30, hidden)] if step_mode == "multi" else [(10, hidden)] * 3)


def test_inference_makes_no_rate_pass():
    """The run says whether outputs will be differentiated."""
    runs = []

    class Noting(gradients.Rate):
        def call(self, run):
            runs.append((run.training, run.with_gradient))
            return super().call(run)

    model = spiking(gradient=Noting())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = data()
    model.predict(x, verbose=0)
    model.evaluate(x, y, verbose=0)
    # With gradient it is at most traced, by a backend that builds the model first.
    assert (False, False) in runs
    assert len([run for run in runs if run != (False, False)]) <= 1
    model.fit(x, y, verbose=0)
    assert (True, True) in runs


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_loss_of_every_step_trains_by_rate(step_mode):
    """The rate receives the sum of the gradients of all steps: for a mean over steps,
    the gradient of the mean output."""
    x, y = data()
    network = mlp()

    def linear(y, outputs):
        return ops.sum(ops.sin(ops.arange(3, dtype="float32")) * outputs)

    by_step = spiking(network, 4, "rate", step_mode=step_mode, return_sequences=True)
    _, found = loss_and_gradients(
        by_step, x, y, lambda y, outputs: linear(y, ops.mean(outputs, axis=1))
    )
    _, expected = loss_and_gradients(
        spiking(network, 4, "rate", step_mode=step_mode), x, y, linear
    )
    assert_close(found, expected, rtol=1e-5, atol=1e-7)


@keras.saving.register_keras_serializable(package="tests")
class RecurrentCell(rsnn.layers.NeuronCell):
    """Neurons that receive each other's last spikes through weights that start at
    zero."""

    def build(self, input_shape):
        self.recurrent = self.add_weight(
            shape=(input_shape[-1], input_shape[-1]),
            initializer="zeros",
            name="recurrent",
        )

    def initial_state(self, inputs):
        rest = super().initial_state(inputs)
        return {"membrane": rest, "spikes": rest}

    def step(self, inputs, state):
        heard = ops.matmul(state["spikes"], self.recurrent)
        membrane = 0.5 * state["membrane"] + ops.cast(inputs, heard.dtype) + heard
        spikes = self.fire(membrane)
        return (
            membrane,
            spikes,
            {"membrane": membrane - ops.stop_gradient(spikes), "spikes": spikes},
        )


class MeanCell(rsnn.layers.NeuronCell):
    """Neurons that are inhibited by the mean of all neurons of their sample."""

    def step(self, inputs, state):
        membrane = 0.5 * state + inputs
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - ops.mean(spikes, axis=-1, keepdims=True)


class NoisyCell(rsnn.layers.NeuronCell):
    """Neurons with noise that Keras does not draw."""

    def __init__(self):
        super().__init__()
        self.numbers = np.random.default_rng(0)

    def step(self, inputs, state):
        noise = ops.convert_to_tensor(
            self.numbers.normal(size=tuple(inputs.shape)), inputs.dtype
        )
        membrane = 0.5 * state + inputs + noise
        return membrane, self.fire(membrane), membrane


def of_cell(cell, shape=(6,)):
    inputs = keras.Input(shape)
    return keras.Model(
        inputs, rsnn.layers.Neuron(cell, name="hidden")(inputs), name="mixing"
    )


@pytest.mark.parametrize(
    ("cell", "shape", "named"),
    [
        (RecurrentCell, (6,), "recurrent"),
        (MeanCell, (6,), "MeanCell"),
    ],
)
def test_a_cell_that_mixes_neurons_trains_by_bptt_and_not_by_rate(cell, shape, named):
    with pytest.raises(ValueError, match=named) as raised:
        spiking(of_cell(cell(), shape))
    for said in (cell.__name__, "'hidden'", 'gradient="bptt"'):
        assert said in str(raised.value)
    x, _ = data(shape=shape)
    model = spiking(of_cell(cell(), shape), gradient="bptt")
    loss_and_gradients(
        model, x, np.zeros((10, *shape), "float32"), keras.losses.MeanSquaredError()
    )


def test_a_cell_whose_noise_keras_does_not_draw_is_refused_by_rate_for_this_reason():
    with pytest.raises(
        ValueError,
        match=r"NoisyCell of layer 'hidden' gives other outputs.*keras.random.*bptt",
    ) as raised:
        spiking(of_cell(NoisyCell()))
    assert "mixes" not in str(raised.value)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_mask_in_the_graph_reaches_the_layer_after_the_neurons(gradient, step_mode):
    """Keras adds masks to the graph as keyword arguments, in addition to the positional
    argument."""
    inputs = keras.Input((6,), dtype="int32")
    x = rsnn.layers.LIF()(keras.layers.Embedding(9, 4, mask_zero=True)(inputs))
    network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GRU(4)(x)))
    ids, y = np.random.default_rng(0).integers(0, 9, (4, 6)), np.arange(4) % 3
    loss, found = loss_and_gradients(
        spiking(network, 1, gradient, step_mode=step_mode), ids, y
    )
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        y, network(ids)
    )
    assert loss == pytest.approx(float(to_numpy(expected)), rel=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in found.values())


@pytest.mark.parametrize("step_mode", ["multi", "single"])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_an_empty_batch_has_an_empty_output(gradient, step_mode):
    assert tuple(
        spiking(gradient=gradient, step_mode=step_mode)(
            np.zeros((0, 6), "float32")
        ).shape
    ) == (0, 3)


class Doubled(gradients.LoopedHandler):
    """Counts the spikes so far, and doubles them."""

    def start(self, inputs):
        return (ops.zeros_like(inputs[0]),)

    def advance(self, state, inputs, phase):
        return (state[0] + inputs[0],), [2.0 * inputs[0]]


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


class ReturnsTwo(gradients.Handler):
    def step(self, state, inputs, t):
        return (), [inputs[0], inputs[0]]


def in_a_node(pair):
    """The nodes of a network, with those of `pair(node, handler)` in the place of each
    with neurons."""

    def nodes(calls, context):
        for node in gradients.plain_nodes(calls, context):
            is_neuron = isinstance(node.handler, gradients.NeuronHandler)
            yield from (
                pair(node, Doubled(node.handler.call, context)) if is_neuron else [node]
            )

    return nodes


@pytest.mark.parametrize(
    ("nodes", "error", "finding"),
    [
        (
            gradients.after_neurons(BeginsWithANumber),
            TypeError,
            r"BeginsWithANumber must consist of tensors.*Received: 0\.5",
        ),
        (
            gradients.after_neurons(Widens),
            TypeError,
            r"Widens must keep its structure, shapes.*\(\(10, 8\),\) after \(\(\),\)",
        ),
        (
            gradients.after_neurons(ReturnsATensor),
            TypeError,
            r"ReturnsATensor.advance must return `\(state, outputs\)`",
        ),
        (
            gradients.after_neurons(ReturnsTwo),
            TypeError,
            r"each of the 1 slots.*length 2 from a node with a ReturnsTwo of layer",
        ),
        (
            in_a_node(
                lambda node, mine: [
                    gradients.Node(mine, [-1], node.outputs),
                    node._replace(outputs=[-1]),
                ]
            ),
            ValueError,
            r"come after those whose slots it reads. Received: a node with a Doubled "
            r"of layer '.*', which reads \[-1\]",
        ),
        (
            in_a_node(lambda node, mine: [node._replace(outputs=[-1])]),
            ValueError,
            r"come after those whose slots it reads. Received: a node with a "
            r"OperationHandler of layer",
        ),
    ],
    ids=["number", "shape", "tensor", "two outputs", "order", "not yielded"],
)
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_an_error_names_the_node_or_handler_that_cannot_run(
    nodes, error, finding, step_mode
):
    class Method(gradients.GradientMethod):
        def call(self, run):
            return gradients.plain(run, nodes)

    with pytest.raises(error, match=finding):
        spiking(mlp(), 3, Method(), step_mode=step_mode)(data()[0])


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_node_after_neurons_sees_spikes_and_current_and_gives_what_others_read(
    step_mode,
):
    x, _ = data()
    network, kinds = mlp(), []

    class Seeing(Doubled):
        def advance(self, state, inputs, phase):
            kinds.append(len(inputs))
            return super().advance(state, inputs, phase)

    class Method(gradients.GradientMethod):
        def call(self, run):
            return gradients.plain(run, gradients.after_neurons(Seeing))

    outputs = ops.convert_to_numpy(
        spiking(network, 3, Method(), step_mode=step_mode)(x)
    )
    network.layers[-1].kernel.assign(2.0 * network.layers[-1].kernel)
    np.testing.assert_allclose(
        outputs, ops.convert_to_numpy(spiking(network, 3, "bptt")(x)), rtol=1e-5
    )
    assert set(kinds) == {2}


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_derivative_of_neurons_is_given_a_row_of_the_current_for_each_spike(
    step_mode,
):
    """Also where the current is the same at every step."""

    class Neuron(gradients.NeuronHandler):
        def emitted(self, spikes, inputs, t):
            shapes.append((tuple(spikes.shape), tuple(inputs[0].shape)))
            return spikes

    class Method(gradients.GradientMethod):
        def call(self, run):
            return gradients.plain(run, gradients.with_neurons(Neuron))

    shapes = []
    spiking(mlp(), 3, Method(), step_mode=step_mode)(data()[0])
    assert shapes
    assert all(spikes == current for spikes, current in shapes)
