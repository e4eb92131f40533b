"""Unrolled networks: spikes of 0 and 1, and the outputs, energy and files of the
network with integer spikes."""

import functools
import json
import pathlib

import exported
import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    saved_and_loaded,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, models
from keras_ratesnn.layer_kinds import TIME_MIXING, kind_of
from keras_ratesnn.layers import IF, ILIF, LIF
from keras_ratesnn.models import _residual, preact_resnet, resnet, sew_resnet

ilif = functools.partial(ILIF, 4)
REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "next" / "ilif_mlp.npz"


def normalized(x, filters, size=3, **arguments):
    return layers.BatchNormalization()(
        layers.Conv2D(filters, size, padding="same", **arguments)(x)
    )


def vgg():
    """Max and average pooling, several numbers of levels, binary neurons, normalised
    spikes, a scale."""
    inputs = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D(2)(ILIF(4)(normalized(inputs, 4)))
    x = layers.MaxPooling2D(2, padding="same")(
        ILIF(4, 0.5, normalize=True)(normalized(x, 6))
    )
    x = layers.Rescaling(2.74)(
        ILIF(2, threshold=0.7)(layers.Conv2D(6, 3, padding="same")(x))
    )
    x = LIF(threshold=0.5)(
        layers.SeparableConv2D(4, 2, use_bias=True)(layers.ZeroPadding2D(1)(x))
    )
    x = layers.Flatten()(layers.AveragePooling2D(2)(layers.Dropout(0.5)(x)))
    return keras.Model(inputs, layers.Dense(5)(x))


def residual(unit, block, stem):
    inputs = keras.Input((8, 8, 3))
    x = _residual.stem_block(inputs, 4, "cifar", ilif if stem else None, unit)
    x = block(block(x, 4, 1, ilif, "b1"), 8, 2, ilif, "b2")
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def attention():
    """Products of three tensors of spikes, sums of currents, a bias with axes of its
    own."""
    inputs = keras.Input((6, 8))
    x = layers.Dense(8)(inputs)
    z = ILIF(4)(x)
    q, k, v = (
        ILIF(4, normalize=True)(
            layers.BatchNormalization()(layers.Dense(8, use_bias=False)(z))
        )
        for _ in range(3)
    )
    a = ILIF(4)(0.25 * ops.matmul(q, ops.matmul(ops.transpose(k, (0, 2, 1)), v)))
    x = x + layers.BatchNormalization()(
        layers.EinsumDense("bnc,cd->bnd", (None, 8), bias_axes="d")(a)
    )
    x = layers.Dense(4, activation="tanh", use_bias=False)(ILIF(3)(x))
    return keras.Model(
        inputs, layers.Dense(3, activation="softmax")(ops.mean(ILIF(3)(4 * x), axis=1))
    )


def detector():
    """Nested models, a layer that is called twice, several outputs, one of them spikes,
    and a sum of spikes before pooling."""
    inputs, features = keras.Input((8, 8, 3)), keras.Input((8, 8, 4))
    block = keras.Model(
        features,
        ilif(name="neurons")(normalized(features, 4, use_bias=False)),
        name="block",
    )
    x = block(ilif(name="neurons")(normalized(inputs, 4)))
    kept, passed = ops.split(x, 2, axis=-1)
    x = ops.concatenate(
        [
            layers.Add()([x, block(x)]),
            ops.pad(passed, ((0, 0), (0, 0), (0, 0), (0, 2))),
        ],
        axis=-1,
    )
    x = layers.Conv2D(4, 1)(
        layers.Concatenate()(
            [layers.MaxPooling2D(2)(x), ops.max_pool(kept, (2, 2), strides=(2, 2))]
        )
    )
    head, neurons = layers.Conv2D(4, 1, name="head"), ilif(name="last")
    boxes = head(neurons(head(x)))
    return keras.Model(
        inputs,
        {
            "boxes": boxes,
            "spikes": neurons(layers.Concatenate()([x, boxes])[..., :4] + boxes),
        },
    )


NETWORKS = {
    "vgg": vgg,
    "resnet": functools.partial(residual, resnet.unit, resnet.basic_block, True),
    "sew": functools.partial(residual, sew_resnet.unit, sew_resnet.basic_block, True),
    "preact": functools.partial(
        residual, preact_resnet.unit, preact_resnet.basic_block, False
    ),
    "attention": attention,
    "detector": detector,
}


def both(build, timesteps=2, **arguments):
    """A model with weights that matter, biases and statistics included, and what it
    becomes."""
    keras.utils.set_random_seed(0)
    model, random = spiking(build(), timesteps, **arguments), np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(random.normal(0.2, 0.3, weight.shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.3, 1.0, weight.shape))
    return model, rsnn.unroll(model)


def images_for(model, with_time, samples=8):
    shape = (model.timesteps, *model.network.inputs[0].shape[1:])
    return (
        np.random.default_rng(1)
        .normal(size=(samples, *shape[0 if with_time else 1 :]))
        .astype("float32")
    )


def assert_same(found, expected, tolerance=1e-6):
    """To 1e-6, except that in one sample of twenty a membrane may be within rounding of
    where its integer changes."""
    for ours, theirs in zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    ):
        assert theirs.std() > 0.05
        far = np.abs(ours - theirs) > tolerance * np.abs(theirs).max()
        assert far.reshape(len(far), -1).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize(
    ("name", "with_time"), [*((name, False) for name in NETWORKS), ("vgg", True)]
)
def test_outputs_and_energy_are_those_of_the_integer_network(name, with_time):
    model, binary = both(NETWORKS[name])
    x = images_for(model, with_time)
    assert binary.timesteps == model.timesteps * 4
    assert_same(binary.predict_on_batch(x), model.predict_on_batch(x))
    if name in ("resnet", "preact"):
        # Their operations are among those of the others.
        return
    energies = [analysis.energy(each, x) for each in (model, binary)]
    for count in ("multiply_adds", "accumulates", "multiply_adds_without_spikes"):
        ours, theirs = (sorted(getattr(found, count)) for found in energies)
        assert ours == pytest.approx(theirs, rel=1e-6)
    # A slot reads numbers and all weights again.
    for of_network in (
        "operations",
        "membranes",
        *(["activations"] if name == "vgg" else []),
    ):
        ours, theirs = (getattr(found.spiking, of_network).sum() for found in energies)
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert energies[0].quantized.total == pytest.approx(energies[1].quantized.total)


@pytest.mark.parametrize("name", ["vgg", "attention"])
def test_all_neurons_emit_0_and_1_as_many_as_the_integers_and_first_ones_first(name):
    model, binary = both(NETWORKS[name])
    x = images_for(model, with_time=False)
    neurons = [
        layer.name
        for layer in model.network.layers
        if isinstance(layer, rsnn.layers.Neuron)
    ]
    assert [
        layer.name
        for layer in binary.network.layers
        if isinstance(layer, rsnn.layers.Neuron)
    ] != []
    for layer in neurons:
        integers, slots = (
            analysis.raster(each, x, layer, 20).spikes for each in (model, binary)
        )
        slots = slots.reshape(*integers.shape[:2], 4, -1)
        assert set(np.unique(slots)) <= {0.0, 1.0}
        np.testing.assert_array_equal(slots.sum(axis=2), integers)
        assert (np.diff(slots, axis=2) <= 0).all()


def test_slots_and_outputs_are_those_of_spikingjelly():
    arrays = dict(np.load(REFERENCE))
    settings = json.loads(str(arrays["meta"]))
    x = inputs = keras.Input((12,))
    for neurons, layer in (("n1", "a"), ("n2", "b")):
        x = ILIF(settings["levels"], settings["decay"], name=neurons)(
            layers.Dense(16, name=layer)(x)
        )
    model = spiking(
        keras.Model(inputs, layers.Dense(5, name="c")(x)), settings["timesteps"]
    )
    model.set_weights(
        [
            arrays[f"weight/{name}.{kind}"]
            for name in "abc"
            for kind in ("weight", "bias")
        ]
    )
    binary = rsnn.unroll(model)
    for name in ("n1", "n2"):
        np.testing.assert_array_equal(
            analysis.raster(binary, arrays["x"], name, 16).spikes,
            arrays[f"slots/{name}"],
        )
    np.testing.assert_allclose(
        to_numpy(binary(arrays["x"])), arrays["binary_logits"], rtol=1e-5, atol=1e-6
    )
    assert np.abs(arrays["weight/c.bias"]).max() > 0.01


def test_it_predicts_saves_and_gives_sequences():
    model, binary = both(vgg, return_sequences=True)
    x = images_for(model, with_time=True)
    expected = model.predict(x, verbose=0)
    found = binary.predict(x, verbose=0)
    assert_same(found.reshape(8, 2, 4, 5)[:, :, 3], expected)
    np.testing.assert_allclose(
        saved_and_loaded(binary).predict(x, verbose=0), found, rtol=1e-6
    )
    binary.timesteps = 4
    assert to_numpy(binary(x[:, :1])).shape == (8, 4, 5)


def test_it_streams_one_frame_after_the_other():
    model, binary = both(attention)
    x = images_for(model, with_time=True)
    for _ in range(2):
        for t in range(2):
            assert_same(to_numpy(binary.step(x[:, t])), to_numpy(model.step(x[:, t])))
        for each in (model, binary):
            each.reset_state()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_half_precision_spikes_are_exact(policy):
    """Weights that are multiples of 1/8 have exact products and sums in half precision,
    too."""
    inputs = keras.Input((6,))
    x = ILIF(4, dtype=policy)(layers.Dense(8, dtype=policy)(inputs))
    model = spiking(keras.Model(inputs, layers.Dense(3, dtype=policy)(x)), 2)
    random = np.random.default_rng(0)
    model.set_weights(
        [random.integers(-4, 5, weight.shape) / 8 for weight in model.weights]
    )
    x = random.integers(-4, 5, (5, 2, 6)).astype("float32") / 4
    found, expected = (
        to_numpy(ops.cast(each(x), "float32")) for each in (rsnn.unroll(model), model)
    )
    np.testing.assert_array_equal(found, expected)
    assert expected.std() > 0.1


def transformer(network, size=16, dims=16, blocks=4, **neurons):
    keras.utils.set_random_seed(0)
    model = network(
        (size, size, 3),
        classes=3,
        timesteps=2,
        neuron=ilif,
        dims=dims,
        blocks=blocks,
        heads=2,
        **neurons,
    )
    normalizations = [
        layer
        for layer in model.network.layers
        if isinstance(layer, layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.momentum = 0.0
    # Statistics with which neurons fire.
    training_results(model, images_for(model, with_time=False), np.zeros(8, "int32"))
    return model.network


TRANSFORMERS = {
    "Max-Former": functools.partial(
        transformer, models.MaxFormer, attention_neuron=ilif
    ),
    "QKFormer": functools.partial(transformer, models.QKFormer, attention_neuron=ilif),
    "Spikformer": functools.partial(
        transformer, models.Spikformer, attention_neuron=ilif
    ),
    "E-SpikeFormer": functools.partial(
        transformer, models.ESpikeFormer, 32, (8, 16, 32, 40), 3
    ),
    "Spike-driven Transformer": functools.partial(
        transformer, models.SpikeDrivenTransformer, attention_neuron=ilif
    ),
    "Meta-SpikeFormer": functools.partial(
        transformer,
        models.MetaSpikeFormer,
        32,
        (8, 16, 32, 40),
        3,
        attention_neuron=ilif,
    ),
}
UNIT_ROUNDOFF = {
    "mixed_float16": 2.0**-11,
    "mixed_bfloat16": 2.0**-8,
    "float32": 2.0**-24,
}


def currents_and_spikes(network, timesteps):
    """The inputs and outputs of each neuron layer at each step, by its name: arrays
    `(batch, T, neurons)`, in float32."""
    neurons = [
        layer for layer in network.layers if isinstance(layer, rsnn.layers.Neuron)
    ]
    seen = spiking(
        keras.Model(
            network.inputs,
            {layer.name: [layer.input, layer.output] for layer in neurons},
        ),
        timesteps,
        "bptt",
    )
    seen.return_sequences = True
    # TensorFlow's compiler would take minutes.
    seen.compile(run_eagerly=BACKEND != "jax")
    found = seen.predict_on_batch(images_for(seen, with_time=False))
    # In the order of the network.
    return {
        layer.name: [
            array.astype("float32").reshape(8, seen.timesteps, -1)
            for array in found[layer.name]
        ]
        for layer in neurons
    }


@pytest.mark.parametrize(
    "policy",
    [
        "mixed_float16",
        *(
            pytest.param(of, marks=pytest.mark.slow)
            for of in ("mixed_bfloat16", "float32")
        ),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        "attention",
        *(pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMERS),
    ],
)
def test_spikes_differ_only_where_currents_are_rounded_otherwise(name, policy):
    """In half precision a membrane is often so near to where its integer changes; a
    network then is another one.

    So currents are compared where all spikes of the sample before them are equal: the
    parts of a sum, in each of D = 4 slots, are rounded, and their sum is, before a
    normalisation or a bias and after it. Where the currents are equal to the bit, so
    are the spikes.
    """
    keras.config.set_dtype_policy(policy)
    network = (
        both(attention)[0].network if name == "attention" else TRANSFORMERS[name]()
    )
    integers = currents_and_spikes(network, 2)
    slots = currents_and_spikes(rsnn.unroll(spiking(network, 2)).network, 8)
    assert slots.keys() == integers.keys()
    equal_before, compared = np.ones((8, 2), bool), 0
    for layer, (currents, spikes) in integers.items():
        size = network.get_layer(layer).cell.spike_size
        of_slots, found = (
            slots[layer][0][:, ::4],
            slots[layer][1].reshape(8, 2, 4, -1).sum(axis=2),
        )
        spikes = np.rint(spikes / size)
        differences = np.abs(of_slots - currents)
        allowed = 10 * UNIT_ROUNDOFF[policy] * np.abs(currents).max()
        print(
            layer,
            differences[equal_before].max(initial=0.0) / allowed,
            equal_before.sum(),
            (found == spikes).mean(),
        )
        assert differences[equal_before].max(initial=0.0) <= allowed, layer
        same_currents = np.logical_and.accumulate(differences == 0.0, axis=1)
        np.testing.assert_array_equal(
            found[same_currents], spikes[same_currents], err_msg=layer
        )
        compared += equal_before.sum() * spikes.shape[-1]
        equal_before &= np.logical_and.accumulate(
            (found == spikes).all(axis=-1), axis=1
        )
    assert compared > 1000


def test_its_file_gives_the_same_outputs(tmp_path):
    model, binary = both(attention)
    x, format = (
        images_for(model, with_time=False),
        "onnx" if BACKEND == "torch" else "tf_saved_model",
    )
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    path = str(tmp_path / ("binary.onnx" if format == "onnx" else "binary"))
    binary.export(path, format=format, verbose=False)
    assert_same(
        exported.outputs_of(path, format, x), to_numpy(model(x)), tolerance=1e-5
    )


def test_what_is_not_linear_in_spikes_is_refused():
    inputs = keras.Input((4,))
    network = keras.Model(
        inputs, layers.Dense(2)(layers.Activation("gelu", name="gelu")(ilif()(inputs)))
    )
    with pytest.raises(
        ValueError,
        match=r"exact on single spikes. Received: 'gelu' of type Activation: .* is not "
        r"linear",
    ):
        rsnn.unroll(spiking(network, 1))
    encoded = keras.Model(
        inputs, ilif()(rsnn.layers.BernoulliEncoder(name="encoder")(inputs))
    )
    with pytest.raises(
        ValueError,
        match="'encoder' of type BernoulliEncoder: what it computes depends on the "
        "time step",
    ):
        rsnn.unroll(spiking(encoded, 1))


@pytest.mark.filterwarnings("ignore:The weights of these layers stay")
def test_it_is_quantized_after_it_was_unrolled():
    model, binary = both(attention)
    x = images_for(model, with_time=False)
    binary.quantize("int8")
    assert np.abs(binary.predict_on_batch(x) - model.predict_on_batch(x)).max() < 0.2
    model.quantize("int8")
    with pytest.raises(
        ValueError,
        match=r"`model` must not be quantized: .* Unroll the model, then quantize it",
    ):
        rsnn.unroll(model)


def test_neurons_whose_thresholds_are_running_means_are_refused():
    inputs = keras.Input((4,))
    network = keras.Model(
        inputs, ilif()(LIF(threshold_stabilizer=True, name="stabilized")(inputs))
    )
    with pytest.raises(ValueError, match="'stabilized' of type LIF: its thresholds"):
        rsnn.unroll(spiking(network, 1, "bptt"))


def test_a_network_without_integer_spikes_is_refused():
    inputs = keras.Input((4,))
    binary = spiking(keras.Model(inputs, IF()(inputs)), 2)
    unrolled = rsnn.unroll(spiking(keras.Model(inputs, ilif()(inputs)), 2))
    for model in (binary, unrolled):
        with pytest.raises(
            ValueError,
            match=r"must have neurons with integer spikes, .* at most once in a step",
        ):
            rsnn.unroll(model)


def test_what_an_unrolled_model_cannot_do_is_an_error(tmp_path):
    _, binary = both(vgg)
    binary.compile("sgd", "mse")
    x = np.zeros((2, 8, 8, 3), "float32")
    for train in (
        lambda: binary.fit(x, np.zeros((2, 5))),
        lambda: binary.train_on_batch(x, np.zeros((2, 5))),
    ):
        with pytest.raises(ValueError, match="An unrolled model cannot be trained"):
            train()
    with pytest.raises(
        ValueError,
        match='`step_mode="single"` must not run an unrolled network one time step at '
        "a time",
    ):
        binary.step_mode = "single"
    with pytest.raises(
        ValueError, match="`export_step` must not run an unrolled network"
    ):
        rsnn.export_step(binary, tmp_path / "step")
    with pytest.raises(ValueError, match="`timesteps` must be a multiple of 4"):
        binary.timesteps = 6
    with pytest.raises(ValueError, match="one frame for each of timesteps=2"):
        binary(np.zeros((2, 8, 8, 8, 3), "float32"))


def test_padding_is_padding_in_all_slots():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = rsnn.layers.ILIF(levels=3)(keras.layers.Dense(8)(inputs))
    network = keras.Model(
        inputs,
        keras.layers.Dense(3)(
            rsnn.layers.ILIF(levels=2)(keras.layers.Dense(8)(hidden))
        ),
    )
    model = rsnn.SpikingModel(network, timesteps=4)
    x = np.random.default_rng(0).normal(0.5, 1.0, (3, 4, 6)).astype("float32")
    mask = np.arange(4) < np.array([4, 1, 2])[:, None]
    x[~mask] = np.nan
    np.testing.assert_allclose(
        to_numpy(rsnn.unroll(model)(x, mask=mask)),
        to_numpy(model(x, mask=mask)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_recurrent_neurons_get_no_spikes_from_a_step_that_is_padding():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    neurons = rsnn.layers.Recurrent(
        rsnn.layers.ILIF(levels=3), layers.Dense(6, kernel_initializer="ones")
    )
    model = rsnn.SpikingModel(
        keras.Model(inputs, layers.Dense(3)(neurons(inputs))),
        timesteps=4,
        mask_value=-1.0,
    )
    x = np.random.default_rng(0).uniform(0, 1, (3, 4, 6)).astype("float32")
    x[1, 1] = -1.0
    np.testing.assert_allclose(
        to_numpy(rsnn.unroll(model)(x)), to_numpy(model(x)), rtol=1e-5
    )


def test_sums_over_slots_say_that_they_mix_time_steps():
    _, binary = both(vgg)
    sums = [
        layer for layer in binary.network.layers if kind_of(layer).slots is not None
    ]
    assert {kind_of(layer).role for layer in sums} == {TIME_MIXING}


def with_parallel_neurons_and_delays():
    inputs = keras.Input((6,))
    x = rsnn.layers.Delay(3)(
        layers.Dense(8)(ilif(threshold=0.25)(layers.Dense(8)(inputs)))
    )
    x = rsnn.layers.SlidingPSN(2, threshold=0.25)(x)
    x = rsnn.layers.MaskedPSN(6, 2, threshold=0.25)(
        rsnn.layers.Delay(3)(layers.Dense(8)(x))
    )
    return keras.Model(
        inputs, layers.Dense(3)(ilif(threshold=0.25)(layers.Dense(8)(x)))
    )


def test_layers_that_see_earlier_steps_see_steps_also_with_padding_and_in_a_file():
    keras.utils.set_random_seed(0)
    model = spiking(with_parallel_neurons_and_delays(), 6, "bptt")
    binary = rsnn.unroll(model)
    x = np.random.default_rng(0).normal(size=(6, 6, 6)).astype("float32")
    mask = np.array(
        [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1]] * 2, bool
    )
    assert_same(to_numpy(binary(x, mask=mask)), to_numpy(model(x, mask=mask)))
    energies = [
        sorted(analysis.energy(each, x).multiply_adds) for each in (model, binary)
    ]
    assert energies[0] == pytest.approx(energies[1])
    assert_same(to_numpy(saved_and_loaded(binary)(x)), to_numpy(model(x)))


def test_it_runs_for_no_more_steps_than_the_original():
    binary = rsnn.unroll(spiking(with_parallel_neurons_and_delays(), 6, "bptt"))
    with pytest.raises(
        ValueError,
        match="`timesteps` must be at most 24, the number of time steps that layer "
        "'masked_psn",
    ):
        binary.timesteps = 28
    binary._stream.steps = 6
    with pytest.raises(
        ValueError, match=r"'masked_psn.*' has weights for 6 steps. Received: step 7"
    ):
        binary.step(np.zeros((2, 6), "float32"))


def test_means_of_an_input_stream_too():
    first, second = keras.Input((4,)), keras.Input((4,))
    x = layers.Dense(3)(
        ilif(threshold=0.25)(
            layers.Concatenate()([rsnn.layers.Delay(3)(first), second])
        )
    )
    model = spiking(
        keras.Model([first, second], [rsnn.layers.TimeMean()(second), x]), 3
    )
    binary, x = (
        rsnn.unroll(model),
        np.random.default_rng(0).normal(size=(3, 2, 5, 4)).astype("float32"),
    )
    for frames in x:
        assert_close(
            to_numpy(binary.step(list(frames))),
            to_numpy(model.step(list(frames))),
            rtol=1e-5,
            atol=1e-6,
        )


class Unbuilt(layers.Layer):
    """A layer that has no `build`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(4)

    def call(self, inputs):
        return self.inside(inputs)


def test_casts_to_integers_and_layers_without_build_are_exact():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    halves = 0.5 * ilif(threshold=0.25)(Unbuilt()(inputs))
    whole = ops.cast(ops.cast(halves, "int32"), "float32") + ops.cast(
        ops.cast(halves, "bool"), "float32"
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(whole)), 2)
    x = images_for(model, with_time=True)
    assert_same(to_numpy(rsnn.unroll(model)(x)), to_numpy(model(x)))
