"""What every layer of the library promises: `SUBJECTS` × `PROMISES`.

A promise is kept with one training method and in one step mode, which are drawn. So is
the promise that is tested for each subject; all other pairs run with `-m slow`. The
seed is 0, or the integer `CONTRACT_SEED`, which each night is another one, and a
failure prints it. With `CONTRACT_PAIRS=all` no pair is slow.
"""

import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import NamedTuple

import exported
import keras
import library_neurons
import numpy as np
import pytest
from drawn_networks import (
    PUBLIC,
    Drawing,
    Odd,
    Rectified,
    Saturating,
    give_weights,
)
from helpers import (
    BACKEND,
    assert_close,
    assert_same,
    compiled,
    double_precision,
    registered,
    saved_and_loaded,
    to_numpy,
    training_results,
)
from keras import layers, ops
from numpy.testing import assert_allclose

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import OTTT, SLTT, Rate
from keras_ratesnn.layer_kinds import seeds_of
from keras_ratesnn.layers import LIF, Recurrent
from keras_ratesnn.layers.quantized import QUANTIZED

own = rsnn.layers
T = 4
METHODS = ("rate", Rate(windows=2), "bptt", "sltt", "ottt")
WITHOUT_TRACES = METHODS[:4]
THROUGH_TIME = METHODS[:3]
STEP_BY_STEP = METHODS[2:]
STEP_MODES = ("multi", "single")
SHAPE, CHANNELS, CLASSES, BATCH = (5, 3), 5, 2, 4
NUMBERS = pathlib.Path(__file__).with_name("numbers.json")
LENGTHS = np.array([4, 2, 3, 2])
STARTS = np.array([0, 2, 1, 1])


class Subject(NamedTuple):
    """How a layer, or a function that calls it, is made, where it stands in its
    network, the methods that train it, and facts for which it does not give some
    promises."""

    make: Callable[..., Callable]
    place: str = "neurons"
    methods: tuple = METHODS
    facts: tuple[str, ...] = ()


@registered
class Counting(own.NeuronCell):
    """A state of a membrane and an integer, and a weight."""

    def build(self, input_shape):
        start = keras.initializers.Constant(1.3)
        self.gain = self.add_weight(
            shape=(input_shape[-1],), initializer=start, name="gain"
        )

    def initial_state(self, inputs):
        membrane = super().initial_state(inputs)
        return {"membrane": membrane, "steps": ops.zeros((), "int32")}

    def step(self, inputs, state):
        dtype = state["membrane"].dtype
        leak = ops.where(state["steps"] % 2 == 0, 0.9, 0.5)
        current = ops.cast(self.gain, dtype) * ops.cast(inputs, dtype)
        membrane = ops.cast(leak, dtype) * ops.tanh(state["membrane"]) + current
        spikes = self.fire(membrane)
        after = membrane - spikes * self.threshold
        return membrane, spikes, {"membrane": after, "steps": state["steps"] + 1}


@registered
class Noisy(layers.Layer):
    """Takes the time step, and draws random numbers in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(7)

    def call(self, inputs, time_step=None, training=None):
        if time_step is not None:
            step = ops.reshape(ops.cast(time_step, inputs.dtype), (-1, 1, 1))
            inputs = inputs * (1.0 + 0.1 * step)
        if training:
            noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
            inputs = inputs * (1.0 + ops.cast(noise, inputs.dtype))
        return inputs


def quantized(**options):
    return QUANTIZED[layers.Dense](CHANNELS, weight_type="int4", **options)


def recurrent(**options):
    back = layers.Dense(CHANNELS, kernel_initializer="ones", name="back")
    return Recurrent(LIF(0.5, 0.4), back, **options)


def attention(**options):
    layer = layers.MultiHeadAttention(2, 2, dropout=0.3, seed=7, **options)
    return lambda x: layer(x, x)


CHANNEL_DECAYS = [0.2, 0.4, 0.5, 0.6, 0.8]


def neurons(name):
    """Neurons of the library."""
    cell = library_neurons.layer(name, T).cell
    cell.build((None, CHANNELS))
    make = functools.partial(library_neurons.layer, name, T)
    facts = ("axis",) if "per_channel" in library_neurons.ARGUMENTS[name] else ()
    facts += ("random", "draws") if seeds_of(cell) else ()
    if cell.sees_all_steps:
        return Subject(make, methods=THROUGH_TIME, facts=("at once",))
    methods = WITHOUT_TRACES if cell.trace_decay() is None else METHODS
    return Subject(make, methods=methods, facts=facts)


SUBJECTS = {
    **{name: neurons(name) for name in library_neurons.ARGUMENTS},
    "LIF delayed": Subject(
        lambda **k: own.LIF(
            0.5,
            0.4,
            decay_input=True,
            reset="hard",
            v_reset=-0.1,
            reset_delay=True,
            **k,
        )
    ),
    "LIF channels": Subject(
        lambda **k: own.LIF(CHANNEL_DECAYS, 0.5, learn_decay=True, **k), facts=("axis",)
    ),
    "LIF stabilized": Subject(
        lambda **k: own.LIF(0.5, threshold_stabilizer=True, **k),
        methods=STEP_BY_STEP,
        facts=("coupled", "statistics"),
    ),
    "Neuron": Subject(
        lambda **k: own.Neuron(Saturating(threshold=0.5), **k), methods=WITHOUT_TRACES
    ),
    "Neuron counting": Subject(
        lambda **k: own.Neuron(Counting(threshold=0.6), **k), methods=WITHOUT_TRACES
    ),
    "Neuron drawing": Subject(
        lambda **k: own.Neuron(Drawing(decay=0.5, threshold=0.6), **k),
        methods=WITHOUT_TRACES,
        facts=("random", "draws"),
    ),
    "Recurrent": Subject(recurrent, methods=WITHOUT_TRACES, facts=("returns",)),
    "BatchNormalization": Subject(
        layers.BatchNormalization, "currents", facts=("axis", "statistics")
    ),
    "OnlineRenormalization": Subject(
        own.OnlineRenormalization, "currents", facts=("axis", "statistics")
    ),
    "TemporalEffectiveBatchNormalization": Subject(
        lambda **k: own.TemporalEffectiveBatchNormalization(T, **k),
        "currents",
        facts=("axis", "statistics"),
    ),
    "ThresholdDependentBatchNormalization": Subject(
        own.ThresholdDependentBatchNormalization,
        "currents",
        facts=("axis", "statistics"),
    ),
    "Delay": Subject(lambda **k: own.Delay(3, **k), "currents"),
    "Scale": Subject(
        lambda **k: own.Scale(0.7, per_channel=True, **k), "currents", facts=("axis",)
    ),
    "TimeMixing": Subject(Rectified, "currents"),
    "WSConv2D": Subject(lambda **k: own.WSConv2D(CHANNELS, 1, **k), "images"),
    "WSDense": Subject(lambda **k: own.WSDense(CHANNELS, **k), "currents"),
    "Dense quantized": Subject(quantized, "currents"),
    "Dropout": Subject(
        lambda **k: layers.Dropout(0.3, seed=7, **k), "spikes", facts=("random",)
    ),
    "AlphaDropout": Subject(
        lambda **k: layers.AlphaDropout(0.3, seed=7, **k), "spikes", facts=("random",)
    ),
    "GRU": Subject(
        lambda **k: layers.GRU(
            CHANNELS, return_sequences=True, dropout=0.3, seed=7, **k
        ),
        "spikes",
        facts=("random",),
    ),
    "Noisy": Subject(Noisy, "spikes", facts=("random",)),
    "BernoulliEncoder": Subject(
        lambda **k: own.BernoulliEncoder(seed=7, **k),
        "inputs",
        facts=("random", "static"),
    ),
    "Encoder": Subject(Odd, "inputs", facts=("static",)),
    "LatencyEncoder": Subject(own.LatencyEncoder, "inputs", facts=("static",)),
    "LeakyReadout": Subject(
        lambda **k: own.LeakyReadout(CHANNEL_DECAYS, synaptic_decay=0.3, **k),
        "readouts",
        facts=("axis",),
    ),
    "LeakyReadout learned": Subject(
        lambda **k: own.LeakyReadout(0.8, learn_decay=True, value="max", **k),
        "readouts",
    ),
    "TimeMean": Subject(own.TimeMean, "readouts", facts=("means",)),
    "GaussianNoise": Subject(
        lambda **k: layers.GaussianNoise(0.3, seed=7, **k), "spikes", facts=("random",)
    ),
    "GaussianDropout": Subject(
        lambda **k: layers.GaussianDropout(0.3, seed=7, **k),
        "spikes",
        facts=("random",),
    ),
    "SpatialDropout": Subject(
        lambda **k: layers.SpatialDropout1D(0.3, seed=7, **k),
        "spikes",
        facts=("random",),
    ),
    "DropPath": Subject(
        lambda **k: layers.Dropout(0.3, noise_shape=(None, 1, 1), seed=7, **k),
        "spikes",
        facts=("random",),
    ),
    "Attention": Subject(attention, "spikes", facts=("random", "composed")),
    "Recurrent scale": Subject(
        lambda **k: own.Recurrent(
            own.LIF(0.5, 0.4), own.Scale(0.7, per_channel=True, name="back"), **k
        ),
        methods=WITHOUT_TRACES,
        facts=("returns",),
    ),
}


def sums(x, units=CHANNELS):
    """Not of a Dense layer, which Keras computes in float32 on PyTorch, whatever its
    dtype."""
    return layers.Conv1D(units, 1)(x)


def network(subject, depth=2):
    """The layer twice where it can be, between layers of the most ordinary kind."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(SHAPE, dtype=policy.compute_dtype)
    for index in range(depth):
        made = subject.make(name=f"subject_{index}")
        plain = LIF(0.5, 0.4)
        match subject.place:
            case "neurons":
                x = made(sums(x))
            case "currents":
                x = plain(made(sums(x)))
            case "images":
                rows = layers.Reshape((*x.shape[1:-1], 1, x.shape[-1]))(x)
                x = plain(layers.Reshape((SHAPE[0], CHANNELS))(made(rows)))
            case "spikes":
                x = made(plain(sums(x)))
            case "inputs":
                x = plain(sums(made(x) if index == 0 else x))
            case "readouts":
                x = made(sums(x)) if index == depth - 1 else plain(sums(x))
    made_network = keras.Model(inputs, sums(x, CLASSES))
    random = np.random.default_rng(0)
    give_weights(made_network, random)
    for weight in made_network.weights:
        # Those of parallel neurons and of delays: the initial ones differ between
        # backends.
        if weight.name in ("weight", "position"):
            weight.assign(random.uniform(-0.8, 0.8, weight.shape))
    return made_network


def subjects_of(model):
    return [layer for layer in model.network.layers if "subject" in layer.name]


def model_of(subject, gradient, step_mode, timesteps=T, frozen=False, **kwargs):
    """`frozen`: without the statistics of a batch, which differ between the step
    modes."""
    depth = kwargs.pop("depth", 2)
    model = rsnn.SpikingModel(
        network(subject, depth), timesteps, gradient, step_mode, **kwargs
    )
    for layer in subjects_of(model):
        layer.trainable = not (frozen and "statistics" in subject.facts)
    return model


def data_of(subject, timesteps=T):
    random = np.random.default_rng(1)
    if "static" in subject.facts:
        return random.random((BATCH, *SHAPE))
    return random.normal(0.8, 1.0, (BATCH, T, *SHAPE))[:, :timesteps]


def targets(samples=BATCH):
    return np.linspace(-1.0, 1.0, samples * SHAPE[0] * CLASSES).reshape(
        samples, SHAPE[0], CLASSES
    )


@registered
def squared_distance(y, outputs):
    return ops.sum(ops.square(ops.cast(outputs, y.dtype) - y))


def results(model, x, y=None, loss=squared_distance):
    """The loss, the gradients, the outputs and the state after a training step."""
    y = targets() if y is None else y
    value, gradients, outputs = training_results(model, x, y, loss)
    kernel = next(iter(gradients.values()))
    assert np.any(kernel), "no gradient reaches the first layer"
    state = [to_numpy(variable) for variable in model.non_trainable_variables]
    return {"loss": value, **gradients, "outputs": outputs, "state": state}


def assert_equal(found, expected, rtol=1e-5):
    state, expected_state = found.pop("state"), expected.pop("state")
    assert found.keys() == expected.keys()
    assert_same(found, expected, rtol=rtol)
    assert_same(state, expected_state, rtol=rtol)


def a_window_for_each_step_is_bptt(subject, gradient, step_mode):
    found, expected = (
        results(model_of(subject, method, step_mode), data_of(subject))
        for method in (Rate(windows=T), "bptt")
    )
    assert_equal(found, expected)


def at_one_step_each_method_is_bptt(subject, gradient, step_mode):
    found, expected = (
        results(model_of(subject, method, step_mode, 1), data_of(subject, 1))
        for method in ("rate" if isinstance(gradient, Rate) else gradient, "bptt")
    )
    assert_equal(found, expected)


def one_layer_on_a_constant_input_learns_by_rate_as_by_bptt(
    subject, gradient, step_mode
):
    """Nothing is approximated then."""
    x = data_of(subject)[:, 0]
    found, expected = (
        results(model_of(subject, method, step_mode, depth=1), x)
        for method in ("rate", "bptt")
    )
    assert_equal(found, expected)


def single_step_mode_is_multi(subject, gradient, step_mode):
    found, expected = (
        results(model_of(subject, gradient, mode, frozen=True), data_of(subject))
        for mode in STEP_MODES
    )
    assert_equal(found, expected)


def steps_that_run_again_are_those_that_are_kept(subject, gradient, step_mode):
    method = OTTT if gradient == "ottt" else SLTT
    found, expected = (
        results(
            model_of(subject, method(recompute=recompute), "single"), data_of(subject)
        )
        for recompute in (True, False)
    )
    assert_equal(found, expected)


def a_stream_is_the_sequence(subject, gradient, step_mode):
    """Means are those of the steps so far."""
    x = data_of(subject)
    has_means = "means" in subject.facts
    model = model_of(subject, gradient, step_mode, return_sequences=not has_means)
    expected = None if has_means else to_numpy(model(x))
    for t in range(T):
        found = to_numpy(model.step(x if "static" in subject.facts else x[:, t]))
        if has_means:
            model.timesteps = t + 1
        wanted = to_numpy(model(x[:, : t + 1])) if has_means else expected[:, t]
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def a_current_that_is_not_finite_is_nan_in_the_outputs(subject, gradient, step_mode):
    """Of its sample alone, also once a queue has no place for it, and in a stream."""
    x = data_of(subject)
    x[0, 0], x[1, 0] = np.nan, np.inf
    model = model_of(subject, gradient, step_mode)
    found = [to_numpy(model(x))]
    if "at once" not in subject.facts:
        found.append([to_numpy(model.step(x[:, t])) for t in range(T)][-1])
    for outputs in found:
        assert np.isnan(outputs[:2]).all()
        assert np.isfinite(outputs[2:]).all()


def padding_anywhere_is_the_sample_alone(subject, gradient, step_mode):
    """Before a sequence and after it, whatever is in the padding."""
    x, y = np.full((BATCH, T, *SHAPE), np.nan), targets()
    frames = data_of(subject)
    for sample, (start, length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        x[sample, start : start + length] = frames[sample, :length]
    model = model_of(subject, gradient, step_mode, frozen=True, mask_value=np.nan)
    found = results(model, x)
    total, outputs = {}, {}
    for length in np.unique(LENGTHS):
        same = np.flatnonzero(length == LENGTHS)
        alone = rsnn.SpikingModel(model.network, int(length), gradient, step_mode)
        part = results(alone, frames[same, :length], y[same])
        outputs.update(zip(same, part.pop("outputs"), strict=True))
        state = part.pop("state")
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    total["outputs"] = np.stack([outputs[sample] for sample in range(BATCH)])
    assert_equal(found, {**total, "state": state})


def a_long_loop_begins_as_a_short_one(subject, gradient, step_mode):
    """Neither outputs nor gradients of the first steps know of later ones."""

    def loss_of_first(y, outputs):
        return squared_distance(y[:, None], outputs[:, :2])

    found, expected = (
        results(
            model_of(
                subject, "bptt", step_mode, steps, frozen=True, return_sequences=True
            ),
            data_of(subject, steps),
            loss=loss_of_first,
        )
        for steps in (T, 2)
    )
    found["outputs"] = found["outputs"][:, :2]
    assert_equal(found, expected)


def trained(model, x, steps=2):
    for _ in range(steps):
        model.train_on_batch(x, targets())
    return [to_numpy(variable) for variable in model.variables]


def a_saved_model_goes_on(subject, gradient, step_mode):
    x = data_of(subject)
    model = compiled(model_of(subject, gradient, step_mode), "adam", squared_distance)
    trained(model, x, 1)
    loaded = saved_and_loaded(model)
    assert_close(trained(loaded, x, 1), trained(model, x, 1), rtol=1e-5, atol=1e-6)


def a_frozen_layer_stays_and_lets_the_gradient_through(subject, gradient, step_mode):
    x = data_of(subject)
    whole = results(model_of(subject, gradient, step_mode, frozen=True), x)
    model = model_of(subject, gradient, step_mode)
    for layer in subjects_of(model):
        layer.trainable = False
    before = [
        to_numpy(weight) for layer in subjects_of(model) for weight in layer.weights
    ]
    found = results(model, x)
    after = [
        to_numpy(weight) for layer in subjects_of(model) for weight in layer.weights
    ]
    assert_close(after, before, rtol=0)
    assert not [path for path in found if "subject" in path]
    found.pop("state")
    assert_same(found, {name: whole[name] for name in found}, rtol=1e-5)
    for copy in (saved_and_loaded(model), keras.models.clone_model(model)):
        assert [weight.path for weight in copy.trainable_variables] == [
            weight.path for weight in model.trainable_variables
        ]


def any_engine_gives_the_same(subject, gradient, step_mode):
    """Eager or compiled, in unrolled loops or not."""
    unrolled = {"cpu": {False: 1, True: 1}, "gpu": {False: 1, True: 1}}
    settings = (
        {"eager_calls": {"auto": 1, True: 1}, "compiler": "eager"}
        if BACKEND == "torch"
        else {"unrolled_steps": unrolled}
    )
    x, states = data_of(subject), []
    for jit_compile in (False, True):
        model = model_of(subject, gradient, step_mode)
        # JAX runs operation by operation else.
        compiled(
            model, "sgd", squared_distance, jit_compile=jit_compile or BACKEND == "jax"
        )
        with rsnn.engine_settings(**(settings if jit_compile else {})):
            states.append(trained(model, x))
    assert_close(*states, rtol=1e-5, atol=1e-6)


def half_precision_trains_weights_of_full_precision(subject, gradient, step_mode):
    dtype = {"multi": "bfloat16", "single": "float16"}[step_mode]
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    model = model_of(subject, gradient, step_mode)
    found = results(model, data_of(subject))
    assert model.outputs[0].dtype == dtype
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    del found["state"]
    assert [name for name, value in found.items() if not np.isfinite(value).all()] == []


def an_exported_file_gives_the_outputs(subject, gradient, step_mode, tmp_path):
    model = model_of(subject, gradient, step_mode)
    x = data_of(subject).astype("float32")
    format = "onnx" if BACKEND == "torch" else "tf_saved_model"
    path = tmp_path / f"model{exported.SUFFIXES[format]}"
    signature = [keras.InputSpec(shape=(None, *x.shape[1:]), dtype="float32")]
    model.export(path, format=format, verbose=False, input_signature=signature)
    expected = to_numpy(model(x))
    assert_allclose(
        exported.outputs_of(path, format, x), expected, rtol=1e-4, atol=1e-5
    )


def a_sample_depends_on_no_other(subject, gradient, step_mode):
    """And a layer fires as often where parts of the network are compiled."""
    model, x = model_of(subject, gradient, step_mode), data_of(subject)
    rsnn.testing.check_sample_independence(model, x)
    found = [
        layer.firing_rate for layer in rsnn.describe(model, x, verbose=False).layers
    ]
    assert_close(found, rsnn.analysis.firing_rates(model, x).mean)


def numbers_are_those_of_every_backend(subject, gradient, step_mode):
    """Committed: the loss, and a sum of each gradient, by a method that the name of the
    subject draws.

    Written anew by PyTorch, in one process, with `UPDATE_NUMBERS=1
    CONTRACT_PAIRS=all`."""
    name = next(name for name, known in SUBJECTS.items() if known is subject)
    number = zlib.crc32(name.encode())
    method = subject.methods[number % len(subject.methods)]
    model = model_of(subject, method, "multi")
    found = results(model, data_of(subject))
    del found["state"], found["outputs"]
    totals = [
        float(np.sum(np.cos(np.arange(np.size(value))) * np.ravel(value)))
        for value in found.values()
    ]
    if os.environ.get("UPDATE_NUMBERS"):
        numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
        numbers[name] = [round(total, 8) for total in totals]
        NUMBERS.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")
    expected = json.loads(NUMBERS.read_text())[name]
    assert_allclose(totals, expected, rtol=1e-5, atol=1e-5)


def channels_may_be_on_any_axis(subject, gradient, step_mode):
    def outputs_and_gradients(axis, x):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(x.shape[2:], dtype="float64")
        outputs = subject.make(axis=axis)(LIF(0.5, 0.4)(inputs))
        if subject.place == "currents":
            outputs = LIF(0.5, 0.4)(outputs)
        model = rsnn.SpikingModel(keras.Model(inputs, outputs), T, gradient, step_mode)
        y = np.zeros((BATCH, *x.shape[2:]))
        _, gradients, outputs = training_results(model, x, y, squared_distance)
        return outputs, [np.ravel(part) for part in gradients.values()]

    x = np.random.default_rng(0).normal(0.8, 1.0, (BATCH, T, 3, CHANNELS))
    expected, gradients = outputs_and_gradients(-1, x)
    found, found_gradients = outputs_and_gradients(1, np.swapaxes(x, 2, 3))
    assert_same([np.swapaxes(found, 1, 2)], [expected], rtol=1e-5)
    assert_same(found_gradients, gradients, rtol=1e-5)


# With the facts of subjects that do not give the promise. These need all steps "at
# once", are given a "static" input, are "coupled" over a layer, get their spikes back
# ("returns"), end time by "means", or are "random"; a cell may draw numbers in each
# step ("draws"). Copies of a layer "composed" of layers are trainable, which is Keras'
# way.
PROMISES = {
    a_window_for_each_step_is_bptt: ("coupled",),
    at_one_step_each_method_is_bptt: ("at once", "static"),
    one_layer_on_a_constant_input_learns_by_rate_as_by_bptt: ("coupled", "returns"),
    single_step_mode_is_multi: ("at once",),
    steps_that_run_again_are_those_that_are_kept: ("at once",),
    a_stream_is_the_sequence: ("at once", "random"),
    a_current_that_is_not_finite_is_nan_in_the_outputs: (),
    padding_anywhere_is_the_sample_alone: ("at once", "random", "static", "coupled"),
    a_long_loop_begins_as_a_short_one: (
        "at once",
        "static",
        "means",
        "coupled",
        "draws",
    ),
    a_saved_model_goes_on: ("random",),
    a_frozen_layer_stays_and_lets_the_gradient_through: ("composed",),
    # Compiled by XLA, TensorFlow draws other numbers.
    any_engine_gives_the_same: ("random",) if BACKEND == "tensorflow" else (),
    half_precision_trains_weights_of_full_precision: (),
    an_exported_file_gives_the_outputs: ("random",),
    a_sample_depends_on_no_other: ("random",),
    numbers_are_those_of_every_backend: ("random",),
    channels_may_be_on_any_axis: (),
}
OF_NEURONS = (
    one_layer_on_a_constant_input_learns_by_rate_as_by_bptt,
    a_current_that_is_not_finite_is_nan_in_the_outputs,
)
IN_DOUBLE_PRECISION = [
    promise
    for promise in PROMISES
    if promise
    not in (
        half_precision_trains_weights_of_full_precision,
        an_exported_file_gives_the_outputs,
    )
]


def is_given(name, promise):
    subject = SUBJECTS[name]
    if set(PROMISES[promise]) & set(subject.facts):
        return False
    if promise in OF_NEURONS:
        return subject.place == "neurons"
    if promise is channels_may_be_on_any_axis:
        return "axis" in subject.facts
    return True


SEED = int(os.environ.get("CONTRACT_SEED", "0"))


def drawn_pairs():
    """A promise for each subject, of those that fewest other subjects were given."""
    random = np.random.default_rng(SEED)
    uses = dict.fromkeys(PROMISES, 0)
    pairs = []
    for name in random.permutation(list(SUBJECTS)):
        given = [promise for promise in PROMISES if is_given(name, promise)]
        least = min(uses[promise] for promise in given)
        rare = [promise for promise in given if uses[promise] == least]
        promise = rare[random.integers(len(rare))]
        uses[promise] += 1
        pairs.append((name, promise))
    return pairs


def cases():
    drawn = drawn_pairs()
    for promise in PROMISES:
        for name in SUBJECTS:
            if not is_given(name, promise):
                continue
            runs = (name, promise) in drawn or os.environ.get("CONTRACT_PAIRS") == "all"
            yield pytest.param(
                name,
                promise,
                marks=() if runs else pytest.mark.slow,
                id=f"{promise.__name__}-{name}",
            )


@pytest.mark.parametrize(("name", "promise"), list(cases()))
def test_a_layer_keeps_its_promise(name, promise, request):
    subject = SUBJECTS[name]
    number = zlib.crc32(request.node.name.encode())
    random = np.random.default_rng([SEED, number])
    gradient = subject.methods[random.integers(len(subject.methods))]
    modes = STEP_MODES[:1] if "at once" in subject.facts else STEP_MODES
    step_mode = modes[random.integers(len(modes))]
    print(f"CONTRACT_SEED={SEED}: gradient={gradient}, step_mode={step_mode}")
    arguments = [subject, gradient, step_mode]
    if promise is an_exported_file_gives_the_outputs:
        arguments.append(request.getfixturevalue("tmp_path"))
    if promise in IN_DOUBLE_PRECISION:
        with double_precision():
            promise(*arguments)
    else:
        promise(*arguments)


def test_every_layer_of_the_library_is_a_subject():
    names = {name.split()[0] for name in SUBJECTS}
    # A cell is that of its layer.
    missing = [name for name in PUBLIC if name.removesuffix("Cell") not in names]
    assert missing == []
