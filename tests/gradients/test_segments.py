"""BPTT that runs layers again: the gradient of BPTT, in less memory."""

import keras
import library_neurons
import numpy as np
import pytest
from drawn_networks import LAST, OF_KERAS, OF_LIBRARY, T, draw
from helpers import (
    assert_same,
    chain,
    recorded_early,
    saved_and_loaded,
    to_numpy,
    training_step,
)
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn._core.packing import Packing
from keras_ratesnn.gradients import BPTT

# What must come first, or stands alone.
NAMES = sorted(
    {*OF_LIBRARY, *OF_KERAS}
    - {*LAST, "BernoulliEncoder", "Encoder", "LatencyEncoder", "TemporalEffective"}
)


def drawn_parts(size=6):
    """All pieces, in the order of a seed, a network of each `size` of them."""
    names = np.random.default_rng(0).permutation(NAMES).tolist()
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    return [
        pytest.param(
            part,
            seed,
            id="-".join(part),
            marks=() if seed < 3 else pytest.mark.backends(1),
        )
        for seed, part in enumerate(parts)
    ]


def results(build, gradient, x, timesteps=T, **arguments):
    """Of two training steps the losses, gradients and outputs, and all variables
    after them."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = rsnn.SpikingModel(build(), timesteps, gradient, "multi", **arguments)
    step = training_step(model)
    found = [step(x, np.arange(len(x)) % 3) for _ in range(2)]
    return found, to_numpy([variable.value for variable in model.variables])


def assert_equal_to_bptt(build, x, **arguments):
    found, after = results(build, BPTT(recompute=True), x, **arguments)
    expected, expected_after = results(build, "bptt", x, **arguments)
    for (loss, gradients, outputs), (of_loss, of_gradients, of_outputs) in zip(
        found, expected, strict=True
    ):
        assert_same([loss, outputs], [of_loss, of_outputs])
        assert_same(gradients, of_gradients, rtol=1e-3)
    assert_same(after, expected_after)


def padded(x):
    """Sequences of the samples, each with a padding of its own."""
    steps = np.repeat(x[:, None], T, axis=1)
    for sample, sequence in enumerate(steps):
        sequence[1 + sample % T :] = np.nan
    return steps


@pytest.mark.parametrize(("names", "seed"), drawn_parts())
def test_the_gradient_of_a_drawn_network_is_that_of_bptt(names, seed):
    x = np.random.default_rng(seed).uniform(-1.0, 2.0, (4, 4, 2, 2)).astype("float32")
    x, arguments = (x, {}) if seed % 2 else (padded(x), {"mask_value": np.nan})
    assert_equal_to_bptt(lambda: draw(names, seed), x, **arguments)


def residual():
    """Shared, nested and spiking-shortcut layers, and a moving mean."""
    inputs = keras.Input((6, 6, 2))
    shared = layers.Conv2D(4, 3, padding="same")
    x = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Conv2D(4, 1)(inputs)))
    part = chain(
        layers.Conv2D(4, 3, padding="same"),
        rsnn.layers.ILIF(levels=3),
        shape=(6, 6, 4),
    )
    y = shared(part(layers.Dropout(0.3, seed=0)(x)))
    z = rsnn.layers.LIF(dtype="float32")(layers.Add()([x, shared(part(y))]))
    x = layers.Flatten()(layers.Add()([z, y]))
    return keras.Model(inputs, layers.Dense(3)(x))


class GradedCell(rsnn.layers.LIFCell):
    """Emits half spikes, which no byte holds, and does not say so."""

    def step(self, inputs, state):
        membrane, spikes, state = super().step(inputs, state)
        return membrane, spikes / 2, state


def graded():
    neurons = (rsnn.layers.Neuron(GradedCell()) for _ in range(2))
    parts = [part for each in neurons for part in (layers.Dense(8), each)]
    return chain(*parts, layers.Dense(3), shape=(6,))


def test_spikes_of_cells_that_do_not_state_their_levels_are_not_packed():
    x = np.random.default_rng(0).uniform(0.0, 2.0, (8, 6)).astype("float32")
    assert_equal_to_bptt(graded, x)


@pytest.mark.parametrize("name", library_neurons.ARGUMENTS)
def test_spikes_of_the_neurons_of_the_library_are_packed(name):
    arguments = library_neurons.arguments_of(name, T)
    neurons = library_neurons.layer_class(name)(**arguments)
    assert neurons.cell.states_levels
    assert rsnn.layers.RecurrentCell(neurons.cell, layers.Dense(8)).states_levels


IMAGES = np.random.default_rng(1).uniform(0.0, 2.0, (4, 6, 6, 2)).astype("float32")


def test_shared_and_nested_layers_have_the_gradient_of_bptt():
    with recorded_early():
        assert_equal_to_bptt(residual, IMAGES)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_has_the_gradient_of_bptt(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        assert_equal_to_bptt(residual, IMAGES)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_fit_ends_where_that_by_bptt_does_also_after_loading(jit_compile, sequences):
    ends = []
    for gradient in (BPTT(recompute=True), "bptt"):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = rsnn.SpikingModel(residual(), T, gradient, return_sequences=sequences)
        y = np.ones((4, T, 3) if sequences else (4, 3))
        with recorded_early():
            for _ in range(2):
                optimizer = keras.optimizers.SGD(0.1)
                model.compile(optimizer, "mse", jit_compile=jit_compile)
                model.fit(IMAGES, y, batch_size=3, verbose=0)
                model = saved_and_loaded(model)
        ends.append(model.get_weights())
        recompute = gradient != "bptt"
        assert model.gradient.get_config() == {"recompute": recompute}
    assert_same(*ends, rtol=1e-3)


@pytest.mark.parametrize(
    ("shape", "levels", "size"),
    [((5, 3, 7), 1, 1.0), ((2, None), 1, 1.0), ((4, 6), 4, 0.25), ((3, 5), 255, 1.0)],
)
def test_packed_spikes_are_the_same_again_in_few_bytes(shape, levels, size):
    packing = Packing(shape, "float32", levels, size)
    numbers = np.random.default_rng(0).integers(
        0, levels + 1, [9 if axis is None else axis for axis in shape]
    )
    spikes = (numbers * size).astype("float32")
    packed = packing.packed(keras.ops.convert_to_tensor(spikes))
    assert packing.fits
    assert packed.dtype == keras.ops.zeros((), "uint8").dtype
    np.testing.assert_array_equal(to_numpy(packing.unpacked(packed)), spikes)
    if levels == 1 and None not in shape:
        assert np.prod(packed.shape) == shape[0] * -(-np.prod(shape[1:]) // 8)


def test_more_than_a_byte_holds_is_not_packed():
    assert not Packing((3, 5), "float32", 256, 1.0).fits


def rematerialized():
    with keras.RematScope(mode="full"):
        return residual()


@pytest.mark.parametrize(
    ("build", "step_mode", "message"),
    [
        (residual, "single", 'Set step_mode="multi"'),
        (rematerialized, "multi", "RematScope.*outside"),
    ],
)
def test_what_cannot_run_again_is_refused_with_what_to_do(build, step_mode, message):
    model = rsnn.SpikingModel(build(), T, BPTT(recompute=True), step_mode)
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(IMAGES, np.ones((4, 3)))


def test_whether_layers_run_again_is_a_boolean():
    with pytest.raises(TypeError, match="recompute"):
        BPTT(recompute="yes")
