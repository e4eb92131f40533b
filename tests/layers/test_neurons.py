"""Neurons with learned parameters, neurons without a leak, and custom neurons."""

import inspect

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    in_threads,
    loss_and_gradients,
    naive_lif,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn


def model_of(*neurons, gradient="rate", timesteps=4, **kwargs):
    x = inputs = keras.Input((6,))
    for index, neuron in enumerate(neurons):
        x = neuron(layers.Dense(8, name=f"dense_{index}")(x))
    return spiking(
        keras.Model(inputs, layers.Dense(3)(x)), timesteps, gradient, **kwargs
    )


@pytest.mark.parametrize(
    ("reset", "initial_membrane"), [("soft", 0.0), ("soft", 0.5), ("hard", 0.0)]
)
def test_integrate_and_fire_neurons_do_not_leak(reset, initial_membrane):
    x, _ = data(4, (7, 6))
    inputs = keras.Input((6,))
    neurons = rsnn.layers.IF(reset=reset, initial_membrane=initial_membrane)
    model = spiking(keras.Model(inputs, neurons(inputs)), 7, return_sequences=True)
    spikes, _, _ = naive_lif(
        np.moveaxis(x, 1, 0), 1.0, reset=reset, initial_membrane=initial_membrane
    )
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), np.moveaxis(spikes, 0, 1)
    )


def test_a_membrane_starts_below_its_threshold():
    with pytest.raises(
        ValueError,
        match=r"`initial_membrane` must be < 0\.5\. Received: initial_membrane=0\.5\. "
        r"At its threshold",
    ):
        rsnn.layers.LIF(threshold=0.5, initial_membrane=0.5)


def test_a_parametric_neuron_begins_as_the_plain_one():
    x, _ = data(4, (7, 6))
    inputs = keras.Input((6,))
    learned = rsnn.layers.ParametricLIF(decay=0.3, threshold=0.7, learn_threshold=True)
    plain = rsnn.layers.LIF(decay=0.3, threshold=0.7)
    outputs = [
        spiking(keras.Model(inputs, layer(inputs)), 7).predict(x, verbose=0)
        for layer in (learned, plain)
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_learned_parameters_move_and_stay_in_their_ranges(step_mode):
    neurons = [
        rsnn.layers.ParametricLIF(learn_threshold=True),
        rsnn.layers.ParametricLIF(per_channel=True),
        rsnn.layers.LIF(learn_threshold=True),
        rsnn.layers.IF(learn_threshold=True),
    ]
    model = compiled(
        model_of(*neurons, step_mode=step_mode), keras.optimizers.Adam(0.5)
    )
    x, y = data(32)
    before = [
        to_numpy(weight) for neuron in neurons for weight in neuron.trainable_weights
    ]
    model.fit(x, y, epochs=3, verbose=0)
    after = [
        to_numpy(weight) for neuron in neurons for weight in neuron.trainable_weights
    ]
    assert len(after) == 5
    assert all((new != old).all() for new, old in zip(after, before, strict=True))
    for neuron in neurons[:2]:
        decay = to_numpy(neuron.cell.effective_decay())
        assert ((decay > 0) & (decay < 1)).all()
    for neuron in (neurons[0], neurons[2], neurons[3]):
        assert to_numpy(neuron.cell.effective_threshold()) > 0


@pytest.mark.parametrize("other", [(6,), (3, 4)])
def test_decays_of_channels_refuse_inputs_of_another_shape(other):
    neuron = rsnn.layers.ParametricLIF(per_channel=True, name="shared")
    neuron(keras.Input((4,)))
    with pytest.raises(
        ValueError, match="'shared' is incompatible with the layer: expected"
    ):
        neuron(keras.Input(other))


def test_in_a_network_parameters_learn_in_the_direction_of_bptt():
    kind = rsnn.layers.ParametricLIF
    neurons = [kind(per_channel=True, learn_threshold=True) for _ in range(3)]
    network, (x, y) = model_of(*neurons).network, data(64)
    _, by_rate = loss_and_gradients(spiking(network, 6, "rate"), x, y)
    _, by_bptt = loss_and_gradients(spiking(network, 6, "bptt"), x, y)
    for name in ("decay_logit", "log_threshold"):
        rate, bptt = (
            np.ravel([value for path, value in of.items() if path.endswith(name)])
            for of in (by_rate, by_bptt)
        )
        assert rate @ bptt / np.linalg.norm(rate) / np.linalg.norm(bptt) > 0.8, name


def test_a_missing_channel_axis_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"`axis` must be an input axis of known size\. Received: axis=4",
    ):
        rsnn.layers.ParametricLIF(per_channel=True, axis=4)(np.zeros((2, 3), "float32"))


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_learned_decay_begins_inside_its_range(decay):
    with pytest.raises(ValueError, match="`decay` must be > 0 and < 1"):
        rsnn.layers.ParametricLIF(decay=decay)


WITHOUT = [("decay_input", "IF"), ("reset_delay", "ALIF")]


@pytest.mark.parametrize(("argument", "layer"), WITHOUT)
def test_neurons_without_an_argument_name_those_that_have_it(argument, layer):
    for name in (layer, f"{layer}Cell"):
        with pytest.raises(
            TypeError,
            match=f"^{name} has no argument `{argument}`.*{argument}=True.*LIF",
        ):
            getattr(rsnn.layers, name)(**{argument: True})


@pytest.mark.parametrize("layer", ["LIF", "IF", "ParametricLIF", "ALIF", "CuBaLIF"])
def test_a_config_makes_the_same_layer(layer):
    cls = getattr(rsnn.layers, layer)
    others = [
        name for name in ("decay_input", "reset_delay") if (name, layer) not in WITHOUT
    ]
    made = cls(
        threshold=0.5,
        reset="hard",
        v_reset=-0.1,
        surrogate="atan",
        learn_threshold=True,
        initial_membrane=0.25,
        name="neurons",
        **dict.fromkeys(others, True),
    )
    again = cls.from_config(made.get_config())
    assert again.get_config() == made.get_config()
    assert (again.threshold, again.reset, again.v_reset, again.name) == (
        0.5,
        "hard",
        -0.1,
        "neurons",
    )
    assert again.initial_membrane == 0.25
    # Those of older versions do not have them.
    old = cls.from_config(
        {key: value for key, value in made.get_config().items() if key not in others}
    )
    for name in others:
        assert getattr(again, name) is True
        assert getattr(old, name) is False


ORDER = (
    *("timesteps", "order", "levels", "decay", "threshold"),
    *(
        "decay_input",
        "synaptic_decay",
        "adaptation_decay",
        "adaptation",
        "per_channel",
        "axis",
        "decay_bits",
        "mask",
        "normalize",
        "round_half_up",
    ),
    *("reset", "v_reset", "detach_reset", "reset_delay", "surrogate"),
    *("learn_decay", "learn_synaptic_decay", "learn_threshold", "initial_membrane"),
    "threshold_stabilizer",
)
"""The arguments of neurons. Those of the first line may be given by position, the
others by name alone."""

CELLS = [
    name
    for name in rsnn.layers.__all__
    if name.endswith("Cell") and not name.startswith("Recurrent")
]


@pytest.mark.runs_once
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_and_its_layer_have_the_same_arguments_in_the_order_of_all_neurons(name):
    *arguments, others = inspect.signature(
        getattr(rsnn.layers, name)
    ).parameters.values()
    assert others.name == "kwargs"
    assert [argument.name for argument in arguments] == [
        each for each in ORDER if each in {found.name for found in arguments}
    ]
    by_name = [
        argument.name
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    ]
    assert by_name == [
        argument.name
        for argument in arguments
        if ORDER.index(argument.name) > ORDER.index("threshold")
    ]
    if name != "NeuronCell":
        *of_layer, others = inspect.signature(
            getattr(rsnn.layers, name.removesuffix("Cell"))
        ).parameters.values()
        assert others.name == "kwargs"
        assert of_layer[: len(arguments)] == arguments
        assert [found.name for found in of_layer[len(arguments) :]] == (
            ["threshold_stabilizer"] if name == "LIFCell" else []
        )


@keras.saving.register_keras_serializable(package="tests")
class AdaptiveCell(rsnn.layers.NeuronCell):
    """A custom neuron with a state of two tensors: every spike raises its threshold
    temporarily."""

    def initial_state(self, inputs):
        rest = super().initial_state(inputs)
        return {"membrane": rest, "fatigue": rest}

    def step(self, inputs, state):
        membrane = (
            0.5 * state["membrane"]
            + ops.cast(inputs, state["membrane"].dtype)
            - state["fatigue"]
        )
        spikes = self.fire(membrane)
        fatigue = 0.8 * state["fatigue"] + 0.1 * ops.stop_gradient(spikes)
        return (
            membrane,
            spikes,
            {
                "membrane": membrane * (1.0 - ops.stop_gradient(spikes)),
                "fatigue": fatigue,
            },
        )


@keras.saving.register_keras_serializable(package="tests")
class GainCell(AdaptiveCell):
    """With a weight, which Keras would cast to half precision."""

    def build(self, input_shape):
        self.gain = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", name="gain"
        )

    def step(self, inputs, state):
        return super().step(
            ops.exp(self.gain) * ops.cast(inputs, state["membrane"].dtype), state
        )


@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_a_weight_of_a_custom_cell_stays_in_single_precision(gradient):
    keras.config.set_dtype_policy("mixed_bfloat16")
    neuron = rsnn.layers.Neuron(GainCell())
    model = compiled(model_of(neuron, gradient=gradient))
    before = to_numpy(neuron.cell.gain)
    x, y = data(8)
    model.fit(x, y, verbose=0)
    assert (to_numpy(neuron.cell.gain) != before).any()


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="other backends differentiate by functions without a state",
)
def test_models_of_two_threads_train_like_each_alone():
    """The derivative of a cell without a written one is a forward-mode derivative,
    which PyTorch has one at a time of."""

    def trained():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        network = keras.Model(
            inputs, layers.Dense(3)(rsnn.layers.CuBaLIF()(layers.Dense(5)(inputs)))
        )
        return compiled(spiking(network), jit_compile=False)

    def train(model):
        for _ in range(20):
            model.train_on_batch(x, y)

    x, y = data()
    models = [trained() for _ in range(3)]
    train(models[0])
    in_threads(train, [(model,) for model in models[1:]])
    for model in models[1:]:
        assert_close(models[0].get_weights(), model.get_weights(), rtol=0)
