"""Training with quantised kernels and decays: a model is that of the rounded weights,
with their gradient."""

import contextlib

import keras
import numpy as np
import pytest
from exported import outputs_of
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    mlp,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers.quantized import QuantizedKernels

T = 3
DECAY = 77 / 256
RATE_2 = rsnn.gradients.Rate(windows=2)
METHODS = [
    ("rate", "multi"),
    ("rate", "single"),
    (RATE_2, "multi"),
    ("bptt", "multi"),
    ("sltt", "single"),
    ("ottt", "multi"),
]


def network(decay=0.3, decay_bits=None, data_format="channels_last"):
    """Convolutions, one of them called twice, with batch normalisation, pooling and a
    nested model."""
    options = {"data_format": data_format}
    inputs = keras.Input((2, 4, 4) if data_format == "channels_first" else (4, 4, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem", **options)(
        inputs
    )
    x = layers.BatchNormalization(axis=1 if data_format == "channels_first" else -1)(x)
    x = rsnn.layers.LIF(decay, threshold=0.5, name="neurons")(x)
    shared = layers.Conv2D(4, 3, padding="same", name="shared", **options)
    x = rsnn.layers.LIF(decay, threshold=0.3)(shared(x))
    x = layers.Add()(
        [
            x,
            rsnn.layers.ParametricLIF(
                0.6, threshold=0.3, decay_bits=decay_bits, name="learning"
            )(shared(x)),
        ]
    )
    x = layers.AveragePooling2D(2, strides=1, **options)(x)
    inner = keras.Input(x.shape[1:])
    inside = rsnn.layers.IF(threshold=0.3)(
        layers.DepthwiseConv2D(2, name="depthwise", **options)(inner)
    )
    x = keras.Model(inner, inside, name="nested")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


def quantized_layers(model):
    inside = model.network._flatten_layers(include_self=False)
    return {
        layer.name: layer for layer in inside if isinstance(layer, QuantizedKernels)
    }


def rounded(low, plain):
    """A model of ordinary layers, with the kernels that a quantise-aware model uses."""
    used = {
        id(layer.weights[0]): to_numpy(layer.used_kernel())
        for layer in quantized_layers(low).values()
    }
    plain.set_weights(
        [used.get(id(weight), to_numpy(weight)) for weight in low.weights]
    )
    return plain


def with_random_weights(model, seed=0):
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0.0, 0.2, variable.shape))
    return model


def check_equal(low, plain, x, y, rtol=1e-4, atol=1e-6):
    """That a training step is the same: loss, gradients, outputs, and statistics after
    it."""
    of_low, of_plain = (training_results(model, x, y) for model in (low, plain))
    np.testing.assert_allclose(of_low[0], of_plain[0], rtol=rtol)
    np.testing.assert_allclose(
        np.float32(of_low[2]), np.float32(of_plain[2]), rtol=rtol, atol=atol
    )
    assert any(np.any(gradient) for gradient in of_low[1].values())
    for (path, found), expected in zip(
        of_low[1].items(), of_plain[1].values(), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=path)
    assert_close(
        low.non_trainable_variables, plain.non_trainable_variables, rtol=rtol, atol=atol
    )


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_outputs_and_gradients_are_those_of_the_rounded_network(gradient, step_mode):
    model = with_random_weights(spiking(network(), T, gradient, step_mode=step_mode))
    low = rsnn.quantize_aware(model, weights="ternary", first="int4")
    check_equal(
        low,
        rounded(low, spiking(network(DECAY, 8), T, gradient, step_mode=step_mode)),
        *data(4, (4, 4, 2)),
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_in_mixed_precision_too(policy):
    keras.config.set_dtype_policy(policy)
    model = with_random_weights(spiking(network(), T))
    low = rsnn.quantize_aware(model, weights="int4")
    plain = rounded(low, spiking(network(DECAY, 8), T))
    check_equal(low, plain, *data(4, (4, 4, 2)), rtol=1e-2, atol=1e-4)


def test_with_masks_and_channels_first():
    """TensorFlow has no such convolutions on a CPU."""
    data_format = "channels_last" if BACKEND == "tensorflow" else "channels_first"
    x, y = data(4, (T, 4, 4, 2) if data_format == "channels_last" else (T, 2, 4, 4))
    x[:2, 2:] = -7.0
    low = rsnn.quantize_aware(
        with_random_weights(
            spiking(network(data_format=data_format), T, mask_value=-7.0)
        )
    )
    check_equal(
        low,
        rounded(low, spiking(network(DECAY, 8, data_format), T, mask_value=-7.0)),
        x,
        y,
    )


def test_layers_have_the_types_of_their_places_and_one_scale_for_all_classes():
    model = spiking(network(), T)
    before = model.get_weights()
    low = rsnn.quantize_aware(model, "ternary", first="int8", last="int4")
    found = quantized_layers(low)
    types = {
        "stem": "int8",
        "shared": "ternary",
        "depthwise": "ternary",
        "head": "int4",
    }
    assert {name: layer.weight_type for name, layer in found.items()} == types
    assert {name: layer.per_channel for name, layer in found.items()} == {
        **dict.fromkeys(types, True),
        "head": False,
    }
    assert {name: type(layer).__name__ for name, layer in found.items()} == {
        "stem": "QuantizedConv2D",
        "shared": "QuantizedConv2D",
        "depthwise": "QuantizedDepthwiseConv2D",
        "head": "QuantizedDense",
    }
    for of_low, of_model, kept in zip(
        low.get_weights(), model.get_weights(), before, strict=True
    ):
        np.testing.assert_array_equal(of_low, kept)
        np.testing.assert_array_equal(of_model, kept)
    assert not quantized_layers(model)
    assert (low.timesteps, repr(low.gradient), low.step_mode) == (
        model.timesteps,
        repr(model.gradient),
        model.step_mode,
    )
    # From one type to the next, and a part of the layers.
    lower = quantized_layers(rsnn.quantize_aware(low, "int4", filters=["shared", "^h"]))
    assert {name: layer.weight_type for name, layer in lower.items()} == {
        **types,
        "shared": "int4",
        "head": "int8",
    }
    part = rsnn.quantize_aware(
        model, "int4", filters=lambda layer: layer.name != "stem"
    )
    assert {
        name: layer.weight_type for name, layer in quantized_layers(part).items()
    } == {
        "shared": "int4",
        "depthwise": "int4",
        "head": "int8",
    }


def test_a_network_that_ends_in_neurons_has_a_scale_for_each_class():
    inputs = keras.Input((4,))
    x = rsnn.layers.LIF()(layers.Dense(5)(inputs))
    network = keras.Model(inputs, rsnn.layers.LIF()(layers.Dense(3)(x)))
    low = rsnn.quantize_aware(spiking(network, T), "ternary", last="int4")
    first, last = quantized_layers(low).values()
    assert (first.weight_type, first.per_channel) == ("int8", True)
    assert (last.weight_type, last.per_channel) == ("int4", True)


def test_decays_are_multiples_of_a_power_of_two():
    inputs = keras.Input((4,))
    x = rsnn.layers.LIF(0.2, name="lif")(layers.Dense(4)(inputs))
    x = rsnn.layers.CuBaLIF(0.3, synaptic_decay=0.45, name="current")(x)
    x = rsnn.layers.ILIF(2, decay=1.0, name="integer")(x)
    back = rsnn.layers.Scale(0.5)
    x = rsnn.layers.Recurrent(rsnn.layers.LIF(0.7), back, name="recurrent")(x)
    x = rsnn.layers.LIF([0.2, 0.3, 0.7, 0.5], name="each")(x)
    x = rsnn.layers.ParametricLIF(0.999, per_channel=True, name="learned")(x)
    x = rsnn.layers.LeakyReadout(0.9, name="readout")(layers.Dense(3)(x))
    model = spiking(keras.Model(inputs, x), T, "bptt")
    layer = rsnn.quantize_aware(model, decay_bits=4).network.get_layer
    assert 16 * layer("lif").decay == 3
    assert 16 * layer("current").decay == 5
    assert 16 * layer("current").synaptic_decay == 7
    assert layer("integer").decay == 1
    assert 16 * layer("recurrent").neuron.decay == 11
    assert 16 * layer("readout").decay == 14
    np.testing.assert_array_equal(16 * layer("each").decay, [3, 5, 11, 8])
    learned = to_numpy(layer("learned").cell.effective_decay())
    np.testing.assert_array_equal(learned, np.full((1, 4), 15 / 16))


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_learned_decay_is_rounded_in_each_call_and_learns_at_the_rounded_value(
    gradient,
):
    def model(decay, bits):
        inputs = keras.Input((6,))
        settings = {"threshold": 0.5, "per_channel": True, "decay_bits": bits}
        x = rsnn.layers.ParametricLIF(decay, **settings)(inputs)
        kernel = keras.initializers.RandomNormal(stddev=1.0, seed=1)
        x = layers.Dense(3, kernel_initializer=kernel)(x)
        return spiking(keras.Model(inputs, x), T, gradient)

    exact, found = model(11 / 16, None), model(0.7, 4)
    check_equal(found, exact, *data(4), rtol=1e-5)
    compiled(found, keras.optimizers.SGD(10.0)).fit(*data(4), epochs=1, verbose=0)
    cell = found.network.layers[1].cell
    sixteenths = np.round(16 / (1 + np.exp(-to_numpy(cell.decay_logit))))
    assert len(np.unique(sixteenths)) > 1
    expected = np.clip(sixteenths, 1, 15) / 16
    np.testing.assert_array_equal(to_numpy(cell.effective_decay()), expected)


@pytest.mark.parametrize(
    "engine", ["recorded", "eager"] if BACKEND == "torch" else ["compiled"]
)
def test_training_continues_from_a_saved_model_and_from_a_backup(engine, tmp_path):
    x, y = data(8)
    start = rsnn.quantize_aware(spiking(timesteps=T), "int4")
    start.save(tmp_path / "start.keras")

    def fit(folder, epochs, path=tmp_path / "start.keras", before=0):
        model = keras.saving.load_model(path)
        if not model.compiled:
            compiled(
                model,
                keras.optimizers.SGD(0.1, momentum=0.9),
                jit_compile=engine == "compiled" or "auto",
            )
        backup = keras.callbacks.BackupAndRestore(
            tmp_path / folder, delete_checkpoint=False
        )
        history = model.fit(
            x, y, 4, epochs, 0, [backup], shuffle=False, initial_epoch=before
        )
        return model, history.history["loss"]

    with recording() if engine == "recorded" else contextlib.nullcontext():
        model, whole = fit("whole", 4)
        part, _ = fit("part", 2)
        part.save(tmp_path / "part.keras")
        _, resumed = fit("part", 4)
        _, continued = fit("new", 4, tmp_path / "part.keras", before=2)
    assert model.engine == {"compiled": "keras"}.get(engine, engine)
    np.testing.assert_allclose(resumed, whole[2:], rtol=1e-5)
    np.testing.assert_allclose(continued, whole[2:], rtol=1e-5)
    assert whole[-1] < whole[0]


def recording():
    from recorded_calls import recording

    return recording()


def test_folding_unrolling_and_files_keep_the_integers(tmp_path):
    """Of a folded kernel the integers are the same, but for signs, since normalisation
    scales whole channels."""
    inputs = keras.Input((5, 5, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="filters")(inputs))
    x = rsnn.layers.LIF(0.5, threshold=0.4)(x)
    x = layers.Flatten()(rsnn.layers.ILIF(2, decay=0.5)(layers.DepthwiseConv2D(2)(x)))
    model = rsnn.quantize_aware(
        with_random_weights(spiking(keras.Model(inputs, layers.Dense(3)(x)), T)),
        "ternary",
        "ternary",
    )
    x, _ = data(4, (5, 5, 2))
    expected = model.predict(x, verbose=0)
    folded = rsnn.fold_batch_normalization(model, verbose=False)
    assert not folded.fold_report.kept
    kernels = [
        to_numpy(each.network.get_layer("filters").kernel) for each in (model, folded)
    ]
    signs = np.sign(to_numpy(model.network.get_layer("batch_normalization").gamma))
    np.testing.assert_array_equal(np.sign(kernels[1]), np.sign(kernels[0]) * signs)
    for other in (folded, rsnn.unroll(model)):
        np.testing.assert_allclose(
            other.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
        )
    format, name = (
        ("onnx", "model.onnx") if BACKEND == "torch" else ("tf_saved_model", "model")
    )
    model.export(tmp_path / name, format=format, verbose=False)
    np.testing.assert_allclose(
        outputs_of(tmp_path / name, format, x), expected, rtol=1e-4, atol=1e-5
    )
    assert rsnn.describe(model, x).energy.accumulates.sum() > 0


def test_a_nir_file_has_the_quantised_kernels(tmp_path):
    pytest.importorskip("nir")
    inputs = keras.Input((5, 5, 2))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(inputs))
    x = rsnn.layers.WSDense(5)(layers.Flatten()(rsnn.layers.LIF(0.5, threshold=0.4)(x)))
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF(0.5, threshold=0.4)(x))
    )
    model = rsnn.quantize_aware(with_random_weights(spiking(network, T)), "int4")
    rsnn.export_nir(model, tmp_path / "network.nir")
    x, _ = data(4, (5, 5, 2))
    found = rsnn.import_nir(tmp_path / "network.nir", timesteps=T)
    np.testing.assert_allclose(
        found.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_layers_that_stay_as_they_were_are_named():
    inputs = keras.Input((6, 4))
    x = rsnn.layers.LIF()(
        layers.EinsumDense("abc,cd->abd", (None, 4), name="einsum")(inputs)
    )
    x = rsnn.layers.Recurrent(
        rsnn.layers.ParametricLIF(), layers.Dense(4, name="back")
    )(x)
    model = spiking(keras.Model(inputs, layers.Dense(2)(x)), T, "bptt")
    with pytest.warns(
        UserWarning,
        match="weights of these layers stay as they were: einsum, back. Dense layers "
        "and conv",
    ):
        low = rsnn.quantize_aware(model)
    assert [layer.name for layer in quantized_layers(low).values()] == ["dense"]
    rsnn.quantize_aware(model, filters="^dense")


def test_wrong_arguments_are_errors():
    model, inputs = spiking(timesteps=T), keras.Input((4,))
    learned = keras.Model(
        inputs,
        layers.Dense(2)(rsnn.layers.LIF(learn_decay=True, name="learned")(inputs)),
    )
    learned = spiking(learned, T)
    for arguments, error, message in (
        ({"model": model.network}, TypeError, "`model` must be a SpikingModel"),
        (
            {"weights": "int2"},
            ValueError,
            r"`weights` must be one of 'int8', 'int4', 'ternary'. Received: "
            r"weights='int2'",
        ),
        ({"last": None}, ValueError, r"`last` must be one of .* Received: last=None"),
        (
            {"decay_bits": 0},
            ValueError,
            r"`decay_bits` must be from 1 to 16.*Received: decay_bits=0",
        ),
        (
            {"filters": 3},
            TypeError,
            r"`filters` must be a regular expression.*Received: filters=3",
        ),
        (
            {"filters": "convolution"},
            ValueError,
            r"found no layer to quantise.*`filters` choose",
        ),
        (
            {"model": spiking(mlp(decay=0.99)), "decay_bits": 4},
            ValueError,
            r"decay_bits=4, which rounds decay=0.99 of layer 'lif",
        ),
        (
            {"model": learned},
            ValueError,
            r"decays that are fixed.* Received: layer 'learned'.* Use ParametricLIF",
        ),
    ):
        with pytest.raises(error, match=message):
            rsnn.quantize_aware(**{"model": model, **arguments})
    model.network.layers[-1].quantize("int8")
    with pytest.raises(
        ValueError,
        match=r"must not be quantized for inference.*Received: layer 'dense.*Pass the "
        r"model before",
    ):
        rsnn.quantize_aware(model)
