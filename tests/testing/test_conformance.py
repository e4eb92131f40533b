"""The conformance checks: all cells and methods of the library pass, and faults are
found and explained."""

import keras
import numpy as np
import pytest
from drawn_networks import Drawing
from keras import ops
from library_neurons import STEPPING, layer, learned, taken

from keras_ratesnn import gradients
from keras_ratesnn.layers import LIF, IFCell, LIFCell, NeuronCell
from keras_ratesnn.testing import check_cell, check_gradient_method

registered = keras.saving.register_keras_serializable(package="tests_conformance")


def drawn(low, high, seed):
    return keras.initializers.RandomUniform(low, high, seed=seed)


OTHERS = {"decay_input": True, "detach_reset": False, "initial_membrane": 0.1}
"""Than the defaults."""


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        *((name, {}) for name in STEPPING),
        ("LIF", {"detach_reset": True, "reset_delay": True}),
        ("CuBaLIF", {"reset_delay": True}),
        # With values of each neuron.
        (
            "CuBaLIF",
            {
                "decay": drawn(0.2, 0.8, 1),
                "threshold": drawn(0.5, 1.0, 2),
                "reset": "soft",
                "initial_membrane": drawn(-0.3, 0.3, 3),
                "synaptic_decay": keras.initializers.Constant(0.3),
                "axis": None,
            },
        ),
        ("ILIF", {"threshold": 0.7, "round_half_up": True}),
    ],
)
def test_cells_of_the_library_conform(kind, arguments):
    arguments = {**OTHERS, **learned(kind), **arguments}
    check_cell(layer(kind, None, **taken(kind, arguments)).cell)


def test_the_rate_gradient_conforms():
    """Methods are compared with BPTT; `test_random_layers.py` tests that the two agree
    at one time step."""
    check_gradient_method("rate")


class OwnCell(NeuronCell):
    """A correct cell, the base of the cells below."""

    def step(self, inputs, state):
        membrane = 0.5 * state + ops.cast(inputs, state.dtype)
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - self.threshold * ops.stop_gradient(spikes)


@registered
class CountingCell(OwnCell):
    """Counts its calls outside its state."""

    calls = 0

    def step(self, inputs, state):
        self.calls += 1
        return super().step(inputs + 0.1 * self.calls, state)


@registered
class VariableCell(OwnCell):
    def build(self, input_shape):
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def step(self, inputs, state):
        self.calls.assign_add(1.0)
        return super().step(inputs, state)


@registered
class NoisyCell(OwnCell):
    def step(self, inputs, state):
        noise = keras.random.normal(ops.shape(inputs), dtype=inputs.dtype)
        return super().step(inputs + noise, state)


@registered
class MixingCell(OwnCell):
    def step(self, inputs, state):
        total = ops.sum(state, axis=-1, keepdims=True)
        return super().step(ops.cast(inputs, state.dtype) - 0.2 * total, state)


@registered
class SampleMixingCell(OwnCell):
    def step(self, inputs, state):
        mean = ops.mean(inputs, axis=0, keepdims=True)
        return super().step(inputs - 0.1 * mean, state)


@registered
class NarrowCell(OwnCell):
    """Its membrane has the dtype of the input."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs)


@registered
class GrowingCell(OwnCell):
    """A state with a different structure from that at rest."""

    def step(self, inputs, state):
        state = state[0] if isinstance(state, tuple) else state
        membrane, spikes, state = super().step(inputs, state)
        return membrane, spikes, (state, 1.0)


@registered
class TimeFirstCell(OwnCell):
    def initial_state(self, inputs):
        return super().initial_state(inputs)[None]


@registered
class PairCell(OwnCell):
    def step(self, inputs, state):
        return super().step(inputs, state)[1:]


@registered
class WrongDerivativeCell(LIFCell):
    """Omits the decay in the derivative."""

    def step_derivative(self, state, membrane, spikes, surrogate_derivative):
        def along(input_tangent, state_tangent, weight):
            tangent = input_tangent + state_tangent
            return tangent, tangent

        return along


@registered
class SilentCell(OwnCell):
    def step(self, inputs, state):
        return super().step(0.0 * inputs, state)


@registered
class PositionCell(OwnCell):
    """Treats the first neuron differently, but does not mix neurons."""

    def step(self, inputs, state):
        gains = np.ones(inputs.shape[-1], "float32")
        gains[0] = 2.0
        return super().step(inputs * ops.cast(gains, inputs.dtype), state)


@registered
class RefractoryCell(OwnCell):
    """Has never spiked at rest."""

    def initial_state(self, inputs):
        at_rest = super().initial_state(inputs)
        return {"membrane": at_rest, "since": ops.full_like(at_rest, float("inf"))}


class UnregisteredCell(OwnCell):
    pass


@registered
class ForgottenArgumentCell(OwnCell):
    """A config without its argument: copies would have the default."""

    def __init__(self, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain


@registered
class WrappedArgumentCell(OwnCell):
    """An argument in a dict, which backends wrap, and an array."""

    def __init__(self, gains=None, rows=None, **kwargs):
        super().__init__(**kwargs)
        self.gains = gains or {"a": 1.0}
        self.rows = np.ones(2) if rows is None else rows

    def get_config(self):
        doubled = {"a": 2.0 * self.gains["a"]}
        return {**super().get_config(), "gains": doubled, "rows": self.rows}


@registered
class HoldingCell(OwnCell):
    """An argument that no file can hold."""

    default: object = object()

    def __init__(self, held=None, **kwargs):
        super().__init__(**kwargs)
        self.held = held or self.default

    def get_config(self):
        return {**super().get_config(), "held": self.held}


@registered
class PairKeyCell(HoldingCell):
    default = {(1, 2): 3}  # noqa: RUF012


@registered
class UnreadableCell(OwnCell):
    """Stores an argument in a form that it does not take."""

    def __init__(self, gain=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(gain, dict):
            raise ValueError("not an initializer")
        self.gain = gain or keras.initializers.Constant(1.0)

    def get_config(self):
        return {**super().get_config(), "gain": self.gain}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@registered
class RenamedArgumentCell(ForgottenArgumentCell):
    """A config with a name that the constructor does not know."""

    def get_config(self):
        return {**super().get_config(), "gain": self.gain, "scale": self.gain}


@registered
class OwnSpikesCell(OwnCell):
    """Computes spikes without a surrogate."""

    def step(self, inputs, state):
        membrane = 0.5 * state + ops.cast(inputs, state.dtype)
        spikes = ops.cast(membrane >= self.threshold, membrane.dtype)
        return membrane, spikes, membrane - spikes


@registered
class DetachedCell(OwnCell):
    def step(self, inputs, state):
        return super().step(ops.stop_gradient(inputs), state)


@registered
class TernaryCell(OwnCell):
    """Spikes of -1 far below rest."""

    def step(self, inputs, state):
        membrane, spikes, state = super().step(inputs, state)
        return membrane, spikes - self.fire(-membrane, 4.0 * self.threshold), state


@registered
class ResetMembraneCell(OwnCell):
    def step(self, inputs, state):
        _, spikes, state = super().step(inputs, state)
        return state, spikes, state


@pytest.mark.backends(1)
@pytest.mark.parametrize(
    ("cell", "finding"),
    [
        (
            ForgottenArgumentCell,
            r"ForgottenArgumentCell.get_config\(\) does not return \['gain'\]",
        ),
        (
            RenamedArgumentCell,
            r"RenamedArgumentCell.from_config\(get_config\(\)\) fails",
        ),
        (
            UnreadableCell,
            r"UnreadableCell cannot be read from a file: .*not an initializer",
        ),
        (WrappedArgumentCell, r"\['gains'\] differ"),
        (HoldingCell, "The config of HoldingCell cannot be written to a file"),
        (PairKeyCell, "The config of PairKeyCell cannot be written to a file: keys"),
        (
            OwnSpikesCell,
            r"The spikes that OwnSpikesCell.step returns have no "
            r"gradient.*self.fire\(membrane\)",
        ),
        (
            DetachedCell,
            r"The membrane that DetachedCell.step returns has no "
            r"gradient.*stop_gradient",
        ),
        (TernaryCell, r"Spikes must be exactly 0 or 1. TernaryCell returned -1.0"),
        (
            ResetMembraneCell,
            r"The membrane that ResetMembraneCell.step returns must be .*before the "
            r"reset",
        ),
        (
            UnregisteredCell,
            r"UnregisteredCell is not registered.*register_keras_serializable",
        ),
        (PairCell, r"must return \(membrane, spikes, state\)"),
        (TimeFirstCell, r"must have the batch as its first axis.*\(1, 3, 5\)"),
        (
            RefractoryCell,
            r"The state of RefractoryCell must be finite.*Use a large number instead",
        ),
        (GrowingCell, r"must keep its structure, shapes and dtypes"),
        (SilentCell, r"SilentCell never spiked for inputs between .* `scale`"),
        (
            CountingCell,
            r"a different result when it was called again with the same input and "
            r"state",
        ),
        (NoisyCell, r"draw random numbers from a keras.random.SeedGenerator"),
        (VariableCell, r"changed its variables"),
        # And says where and by how much.
        (
            SampleMixingCell,
            r"mixes the samples of a batch.*values differ, most at .* instead of ",
        ),
        (
            NarrowCell,
            r"dtype='mixed_bfloat16' the state of NarrowCell must be float32, but is "
            r"bfloat16",
        ),
        (MixingCell, r"mixes neurons in its step.*element_wise=False"),
        (PositionCell, r"different spikes from a loop over single neurons"),
        (
            WrongDerivativeCell,
            r"with respect to 'input' differs from BPTT's.*step_derivative is not the "
            r"derivative of its step",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_faults_of_a_cell_are_found(cell, finding):
    with pytest.raises(AssertionError, match=finding):
        check_cell(cell(), shapes=[(5,)])


def test_integrate_and_fire_cells_conform_under_any_dtype_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    check_cell(IFCell(reset="hard", v_reset=-0.2), shapes=[(2,)])
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_cell_that_draws_from_a_generator_of_its_own_conforms():
    check_cell(Drawing(), shapes=[(5,)])


def test_a_cell_that_mixes_neurons_can_be_checked_as_such():
    check_cell(MixingCell(), shapes=[(5,)], element_wise=False)


@pytest.mark.backends(1)
def test_only_cells_and_methods_are_accepted():
    with pytest.raises(TypeError, match="`cell` must be a NeuronCell"):
        check_cell(LIF())
    with pytest.raises(TypeError, match=r"a GradientMethod. Received"):
        check_gradient_method(gradients.BPTT)


@registered
class HalfOutput(gradients.GradientMethod):
    """A different loss from that of the spiking network."""

    def call(self, run):
        return 0.5 * gradients.BPTT().call(run)


@registered
class TwoWalks(gradients.GradientMethod):
    """Batch normalisation updates its averages twice."""

    def call(self, run):
        gradients.BPTT().call(run)
        return gradients.BPTT().call(run)


@registered
class ScaledGradient(gradients.GradientMethod):
    """BPTT with a scaled gradient."""

    def __init__(self, by):
        self.by = by

    def call(self, run):
        outputs = gradients.BPTT().call(run)
        return gradients.extend.graft(ops.stop_gradient(outputs), outputs, self.by)

    def get_config(self):
        return {"by": self.by}


class SilentNeuron(gradients.extend.NeuronHandler):
    def emitted(self, spikes, inputs, t):
        return ops.stop_gradient(spikes)


class UnevenNeuron(gradients.extend.NeuronHandler):
    """Three times the gradient where all steps are there."""

    def emitted(self, spikes, inputs, t):
        return gradients.extend.graft(spikes, spikes, 3.0 if t is None else 1.0)


class Scaled(gradients.extend.LoopedHandler):
    """Scales errors by an average of the spikes."""

    def start(self, inputs):
        return ops.zeros_like(inputs[0])

    def advance(self, state, inputs, phase):
        average = 0.8 * state + inputs[0]
        scaled = gradients.extend.graft(inputs[0], inputs[0], 1.0 + average)
        return average, [scaled]


class OnItself(Scaled):
    """Keeps the average outside of the state."""

    def start(self, inputs):
        self.average = super().start(inputs)
        return ()

    def advance(self, state, inputs, phase):
        self.average, outputs = super().advance(self.average, inputs, phase)
        return (), outputs


def not_rewired(calls, context):
    """A node reads the spikes, and nothing reads what it makes of them."""
    for node in gradients.extend.plain_nodes(calls, context):
        yield node
        if isinstance(node.handler, gradients.extend.NeuronHandler):
            scaled = Scaled(node.handler.call, context)
            yield gradients.extend.Node(scaled, node.outputs, [-1])


NODES = {
    "silent": gradients.extend.with_neurons(SilentNeuron),
    "uneven": gradients.extend.with_neurons(UnevenNeuron),
    "on itself": gradients.extend.after_neurons(OnItself),
    "not rewired": not_rewired,
}


@registered
class OfNodes(gradients.GradientMethod):
    def __init__(self, nodes):
        self.nodes = nodes

    def call(self, run):
        return gradients.extend.plain(run, NODES[self.nodes])

    def get_config(self):
        return {"nodes": self.nodes}


@pytest.mark.parametrize(
    ("nodes", "finding"),
    [
        (
            "silent",
            r"the gradients of \['first/kernel', .*\] are zero, so that these weights "
            r"learn nothing.*every_weight=False",
        ),
        (
            "uneven",
            r"the gradient of 'first/kernel' differs: with step_mode=\"multi\" it is "
            r"another one.*t=None.*modes_agree",
        ),
        (
            "on itself",
            r"the gradient of 'first/kernel' differs: without padding it is another "
            r"one.*not on `self`.*padding=False",
        ),
        (
            "not rewired",
            r"Received: a node with a Scaled of layer '.*', whose outputs \[-1\] "
            r"nothing reads",
        ),
    ],
)
def test_methods_that_do_not_train_as_they_should_are_found(nodes, finding):
    with pytest.raises((AssertionError, ValueError), match=finding):
        check_gradient_method(OfNodes(nodes), normalization=False)


@pytest.mark.backends(1)
@pytest.mark.parametrize(
    ("nodes", "switch"),
    [("silent", "every_weight"), ("uneven", "modes_agree"), ("on itself", "padding")],
)
def test_a_method_is_not_checked_for_what_it_is_not_meant_to_do(nodes, switch):
    check_gradient_method(OfNodes(nodes), normalization=False, **{switch: False})


class UnregisteredMethod(gradients.BPTT):
    pass


@pytest.mark.backends(1)
@pytest.mark.parametrize(
    ("method", "finding"),
    [
        (UnregisteredMethod(), "UnregisteredMethod is not registered"),
        (
            HalfOutput(),
            r"HalfOutput in the dense network with step_mode='multi': the loss is .* "
            r"that of the spiking network",
        ),
        (ScaledGradient(0.0), "every gradient is zero"),
        (ScaledGradient(float("inf")), "must be finite and of shape"),
        (TwoWalks(), "moving averages"),
        (
            ScaledGradient(2.0),
            "with one time step: the gradient of 'first/kernel' differs: it is not "
            "BPTT's",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value),
)
def test_faults_of_a_method_are_found(method, finding):
    # What does not belong to the finding takes time to compile.
    one_step, normalization = "one time step" in finding, "moving averages" in finding
    with pytest.raises(AssertionError, match=finding):
        check_gradient_method(
            method, normalization=normalization, exact_at_one_step=one_step
        )
