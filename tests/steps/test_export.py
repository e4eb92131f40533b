"""Exported files give the outputs of the model in the runtimes of their formats: all
time steps at once, and step by step."""

import importlib.util

import keras
import numpy as np
import pytest
from drawn_networks import OF_LIBRARY, give_weights
from drawn_networks import T as DRAWN_T
from exported import SUFFIXES, function_of, loaded, outputs_of
from helpers import compiled, data, saved_and_loaded, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._model import export_formats
from keras_ratesnn._steps.step_graph import StepGraph
from tests.steps.test_until_sure import classifier

BACKEND = keras.backend.backend()
FORMATS = {
    "tensorflow": ["tf_saved_model", "litert", "onnx"],
    "jax": ["tf_saved_model"],
    "torch": ["onnx"],
}[BACKEND]
T = 4


def every_neuron():
    """A small network with each kind of neurons of the library."""
    inputs = keras.Input((6, 6, 2), name="frame")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = rsnn.layers.LIF(threshold=0.3, name="lif")(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    neurons = [
        rsnn.layers.IF(threshold=0.3, initial_membrane=0.15, name="if"),
        rsnn.layers.ParametricLIF(
            threshold=0.3, reset="hard", decay_input=True, name="parametric"
        ),
        rsnn.layers.CuBaLIF(threshold=0.3, reset_delay=True, name="cuba"),
        rsnn.layers.ALIF(
            threshold=0.3, learn_threshold=True, initial_membrane=-0.1, name="alif"
        ),
    ]
    return keras.Model(
        inputs,
        layers.Dense(3)(
            layers.Concatenate()([neuron(layers.Dense(4)(x)) for neuron in neurons])
        ),
    )


def dense(**kwargs):
    inputs = keras.Input((6,), **kwargs)
    x = rsnn.layers.LIF(threshold=0.4)(
        layers.BatchNormalization()(layers.Dense(8)(inputs))
    )
    return keras.Model(inputs, layers.Dense(3)(x))


def every_other_layer():
    """The layers of the library that `every_neuron` lacks."""
    inputs, random = keras.Input((4, 2, 2)), np.random.default_rng(0)
    encoded, spikes = (
        OF_LIBRARY[name](inputs, random) for name in ("LatencyEncoder", "ILIF")
    )
    names = (
        *(
            "Delay",
            "MaskedPSN",
            "OnlineRenormalization",
            "PSN",
            "Recurrent",
            "SlidingPSN",
            "spiking_self_attention",
        ),
        *(
            "TemporalEffectiveBatchNormalization",
            "ThresholdDependentBatchNormalization",
            "TimeMixing",
            "token_attention",
        ),
        *("WSConv2D", "WSDense", "Scale"),
    )
    parts = [
        layers.Flatten()(x)
        for x in (encoded, *(OF_LIBRARY[name](spikes, random) for name in names))
    ]
    network = keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.TimeMean()(layers.Concatenate()(parts)))
    )
    give_weights(network, random)
    return network


def export(model, folder, format, **kwargs):
    path = folder / f"model{SUFFIXES[format]}"
    model.export(path, format=format, verbose=False, **kwargs)
    return path


# Backends and runtimes sum in different orders. These inputs bring no membrane so near
# to a threshold that it matters.
@pytest.mark.parametrize(
    ("format", "timed", "step_mode"),
    [
        *((format, False, "multi") for format in FORMATS),
        (FORMATS[:2][-1], True, "single"),
    ],
)
def test_an_exported_graph_gives_the_outputs_for_batches_of_any_size(
    format, timed, step_mode, tmp_path
):
    x, _ = data(5, (T, 6, 6, 2) if timed else (6, 6, 2))
    model = spiking(every_neuron(), T, step_mode=step_mode)
    signature = (
        {
            "input_signature": [
                keras.InputSpec(shape=(None, *x.shape[1:]), dtype="float32")
            ]
        }
        if timed
        else {}
    )
    path = export(model, tmp_path, format, **signature)
    expected = model.predict(x, verbose=0)
    assert expected.std(axis=0).min() > 0.01
    exported = loaded(path, format)
    for batch in (1, 5):
        np.testing.assert_allclose(
            exported(x[:batch]), expected[:batch], rtol=0, atol=1e-5
        )


def inputs_of(path, format):
    """The names of the inputs of a file; a program of PyTorch takes them in their
    order."""
    path = str(path)
    if format == "tf_saved_model":
        import tensorflow as tf

        return list(
            tf.saved_model.load(path)
            .signatures["serving_default"]
            .structured_input_signature[1]
        )
    if format == "onnx":
        import onnxruntime

        return [place.name for place in onnxruntime.InferenceSession(path).get_inputs()]
    if format == "openvino":
        import openvino

        return [place.any_name for place in openvino.Core().read_model(path).inputs]
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(path).get_signature_list()["serving_default"]["inputs"]


OF_FRAMES = [
    *FORMATS,
    *{"tensorflow": ["openvino"], "torch": ["openvino", "torch"]}.get(BACKEND, []),
]


@pytest.mark.parametrize("format", OF_FRAMES)
def test_a_model_is_exported_for_inputs_as_last_fitted_with_under_their_names(
    format, tmp_path
):
    (x, y), model = data(6, (T, 6)), compiled(spiking(dense(name="frame"), T))
    model.fit(x[:, 0], y, verbose=0)
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    model.predict(x[:, 0], verbose=0)
    # Files, and models that are made of a model, are fitted as it is.
    for other in (
        model,
        saved_and_loaded(model),
        rsnn.fold_batch_normalization(model, verbose=False),
    ):
        path = export(other, tmp_path, format)
        np.testing.assert_allclose(
            outputs_of(path, format, x), expected, rtol=0, atol=1e-5
        )
        assert format == "torch" or inputs_of(path, format) == ["frame"]
    model.fit(x[:, 0], y, verbose=0)
    path = export(model, tmp_path, format, input_signature=None)
    np.testing.assert_allclose(
        outputs_of(path, format, x[:, 0]),
        model.predict(x[:, 0], verbose=0),
        rtol=0,
        atol=1e-5,
    )


class OneBatch(keras.utils.PyDataset):
    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


def test_a_model_is_exported_for_inputs_as_last_fitted_by_data_sets_or_first_called(
    tmp_path,
):
    (x, y), model, format = data(6, (T, 6)), compiled(spiking(dense(), T)), FORMATS[0]
    model.predict(x, verbose=0)
    for samples in (None, x[:, 0], x, x[:, 0]):
        if samples is not None:
            model.fit(OneBatch(samples, y), verbose=0)
        model.evaluate(OneBatch(x, y), verbose=0)
        samples = x if samples is None else samples
        path = export(model, tmp_path, format)
        np.testing.assert_allclose(
            outputs_of(path, format, samples),
            model.predict(samples, verbose=0),
            rtol=0,
            atol=1e-5,
        )


def test_inputs_of_an_own_signature_without_names_have_those_of_the_network(tmp_path):
    model = spiking(dense(name="frame"), T)
    path = export(
        model,
        tmp_path,
        FORMATS[-1],
        input_signature=[keras.InputSpec(shape=(None, T, 6), dtype="float32")],
    )
    assert inputs_of(path, FORMATS[-1]) == ["frame"]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("timed", "step_mode"), [(False, "single"), (True, "multi"), (True, "single")]
)
def test_an_exported_graph_gives_the_outputs_in_the_other_orders(
    format, timed, step_mode, tmp_path
):
    test_an_exported_graph_gives_the_outputs_for_batches_of_any_size(
        format, timed, step_mode, tmp_path
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_padding_that_is_no_number_is_left_out_in_an_exported_graph(value, tmp_path):
    format = FORMATS[-1]
    model, (x, _) = spiking(dense(), T, mask_value=value), data(4, (T, 6))
    x[0, 2:] = x[1, :1] = value
    signature = [keras.InputSpec(shape=(None, T, 6), dtype="float32", name="frames")]
    found = outputs_of(
        export(model, tmp_path, format, input_signature=signature), format, x
    )
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=1e-5)


@pytest.mark.skipif(
    BACKEND == "jax", reason="OpenVINO's converter knows no graph of JAX"
)
@pytest.mark.parametrize(
    ("make", "step_mode"),
    [(every_neuron, "multi"), (every_other_layer, "multi"), (dense, "single")],
)
def test_a_file_of_openvino_gives_the_outputs_for_batches_of_any_size(
    make, step_mode, tmp_path
):
    keras.utils.set_random_seed(0)
    model = spiking(make(), DRAWN_T, step_mode=step_mode)
    x, _ = data(5, model.network.input_shape[1:])
    path = export(model, tmp_path, "openvino")
    expected = model.predict(x, verbose=0)
    assert expected.std(axis=0).min() > 0.01
    exported = loaded(path, "openvino")
    for batch in (1, 5):
        np.testing.assert_allclose(
            exported(x[:batch]), expected[:batch], rtol=0, atol=1e-5
        )


@pytest.mark.skipif(
    BACKEND == "jax", reason="OpenVINO's converter knows no graph of JAX"
)
def test_a_file_of_openvino_leaves_padded_images_out(tmp_path):
    inputs = keras.Input((2, 2, 3))
    spikes = rsnn.layers.LIF(threshold=0.3)(layers.Conv2D(4, 2)(inputs))
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(layers.Flatten()(spikes))),
        T,
        mask_value=-9.0,
    )
    x, _ = data(3, (T, 2, 2, 3))
    x[0, 2:] = x[1, :1] = -9.0
    signature = [
        keras.InputSpec(shape=(None, *x.shape[1:]), dtype="float32", name="frames")
    ]
    exported = loaded(
        export(model, tmp_path, "openvino", input_signature=signature), "openvino"
    )
    np.testing.assert_allclose(
        exported(x), model.predict(x, verbose=0), rtol=0, atol=1e-5
    )


@pytest.mark.skipif(BACKEND != "torch", reason="a format of PyTorch")
def test_a_program_of_pytorch_gives_the_outputs_for_batches_of_any_size(tmp_path):
    x, _ = data(5)
    model = spiking(dense(), T)
    exported = loaded(export(model, tmp_path, "torch"), "torch")
    for batch in (1, 5):
        np.testing.assert_allclose(
            exported(x[:batch]), model.predict(x[:batch], verbose=0), rtol=0, atol=1e-5
        )


@pytest.mark.skipif(BACKEND != "torch", reason="a format of PyTorch")
def test_a_model_around_a_model_becomes_a_program_of_pytorch(tmp_path):
    x, _ = data(5)
    inputs = keras.Input((6,))
    outer = keras.Model(inputs, layers.Dense(2)(spiking(dense(), T)(inputs)))
    exported = loaded(export(outer, tmp_path, "torch"), "torch")
    np.testing.assert_allclose(
        exported(x[:1]), outer.predict(x[:1], verbose=0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "format",
    [
        *FORMATS[:2],
        *(pytest.param(format, marks=pytest.mark.slow) for format in FORMATS[2:]),
    ],
)
def test_exported_steps_are_those_of_the_model(format, tmp_path):
    x, _ = data(5, (T, 6, 6, 2))
    model = spiking(every_neuron(), T)
    path = tmp_path / f"step{SUFFIXES[format]}"
    states = rsnn.export_step(model, path, format, verbose=False)
    assert list(states) == [
        "lif_membrane",
        "if_membrane",
        "parametric_membrane",
        "cuba_current",
        "cuba_membrane",
        "cuba_spikes",
        "alif_membrane",
        "alif_adaptation",
    ]
    starts = {"if_membrane": np.float32(0.15), "alif_membrane": np.float32(-0.1)}
    assert all((state == starts.get(name, 0.0)).all() for name, state in states.items())
    step, states = (
        function_of(path, format),
        {name: np.repeat(state, 5, axis=0) for name, state in states.items()},
    )
    outputs = []
    for t in range(T):
        results = step({"frame": x[:, t], **states})
        assert set(results) == {"output", *(f"next_{name}" for name in states)}
        np.testing.assert_allclose(
            results["output"], to_numpy(model.step(x[:, t])), rtol=0, atol=1e-5
        )
        outputs.append(results["output"])
        states = {name: results[f"next_{name}"] for name in states}
    np.testing.assert_allclose(
        np.mean(outputs, axis=0), model.predict(x, verbose=0), rtol=0, atol=1e-5
    )
    assert np.std(outputs, axis=0).max() > 0.01


@pytest.mark.parametrize("format", FORMATS)
def test_a_loop_over_an_exported_step_stops_where_the_model_does(format, tmp_path):
    model, (x, _) = classifier(), data(12)
    path = tmp_path / f"step{SUFFIXES[format]}"
    start = rsnn.export_step(model, path, format, batch_size=1, verbose=False)
    step, found = function_of(path, format), []
    for frame in x:
        states, total, t, probability = start, 0.0, 0, 0.0
        while t < model.timesteps and probability < 0.6:
            results = step({"input": frame[None], **states})
            states = {name: results[f"next_{name}"] for name in states}
            total, t = total + results["output"], t + 1
            probability = 1 / np.exp(total / t - (total / t).max()).sum()
        found.append((*total[0] / t, t))
    outputs, steps = rsnn.predict_until_sure(model, x, 0.6)
    assert len(set(steps)) > 2
    np.testing.assert_allclose(
        found, np.column_stack([outputs, steps]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("format", FORMATS[:2])
def test_an_exported_step_counts_the_steps_where_a_layer_depends_on_them(
    format, tmp_path
):
    inputs = [keras.Input((4,), name="x 1"), keras.Input((4,), name="other")]
    spikes = rsnn.layers.LatencyEncoder()(inputs[0])
    shared = rsnn.layers.IF(name="twice")
    network = keras.Model(
        inputs,
        {"sum": shared(layers.Add()([shared(spikes), inputs[1]])), "first": spikes},
    )
    model = spiking(network, T)
    path = tmp_path / f"step{SUFFIXES[format]}"
    states = rsnn.export_step(model, path, format, batch_size=2, verbose=False)
    assert {name: state.shape for name, state in states.items()} == {
        "time_step": (),
        "twice_membrane": (2, 4),
        "twice_membrane_1": (2, 4),
    }
    step = function_of(path, format)
    x, other = (
        np.random.default_rng(seed).uniform(size=(2, 4)).astype("float32")
        for seed in range(2)
    )
    for t in range(T):
        results = step({"x_1": x, "other": other, **states})
        expected = to_numpy(model.step([x, other]))
        np.testing.assert_allclose(results["sum"], expected["sum"], atol=1e-5)
        np.testing.assert_array_equal(results["first"], expected["first"])
        states = {name: results[f"next_{name}"] for name in states}
        assert states["time_step"] == t + 1


def test_neurons_that_count_their_steps_are_exported_step_by_step(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((30,), name="frame"),
            rsnn.layers.MaskedPSN(T, order=2, threshold=0.1),
        ]
    )
    model, path = spiking(network, T), tmp_path / f"step{SUFFIXES[FORMATS[0]]}"
    states = rsnn.export_step(model, path, FORMATS[0], batch_size=1, verbose=False)
    step, x = (
        function_of(path, FORMATS[0]),
        np.random.default_rng(0).normal(size=(T, 1, 30)).astype("float32"),
    )
    outputs = []
    for frame in x:
        results = step({"frame": frame, **states})
        states = {name: results[f"next_{name}"] for name in states}
        outputs.append(results["output"])
        np.testing.assert_array_equal(outputs[-1], to_numpy(model.step(frame)))
    assert 0 < np.mean(outputs) < 1


def test_convolutions_over_three_axes_are_exported(tmp_path):
    inputs = keras.Input((5, 3, 4, 2))
    x = rsnn.layers.LIF(threshold=0.2)(layers.Conv3D(3, 2, padding="same")(inputs))
    x = layers.Conv3DTranspose(2, 2, strides=2)(layers.MaxPooling3D(2)(x))
    model, x = (
        spiking(keras.Model(inputs, layers.GlobalAveragePooling3D()(x)), T),
        data(5, (5, 3, 4, 2))[0],
    )
    outputs = outputs_of(export(model, tmp_path, FORMATS[0]), FORMATS[0], x)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_a_format_refuses_become_names_like_them(format, tmp_path):
    names = {"ähnlich": "hnlich", "_x": "x", "x": "x_1", "1 y": "1_y", "ä": "tensor"}
    inputs = [keras.Input((3,), name=name) for name in names]
    outputs = {"_out": rsnn.layers.IF(name="_if")(layers.Add()(inputs))}
    path = tmp_path / f"step{SUFFIXES[format]}"
    model = spiking(keras.Model(inputs, outputs), T)
    states = rsnn.export_step(model, path, format, batch_size=2, verbose=False)
    assert list(states) == ["if_membrane"]
    x = np.random.default_rng(0).uniform(size=(5, 2, 3)).astype("float32")
    results = function_of(path, format)(
        {**dict(zip(names.values(), x, strict=True)), **states}
    )
    np.testing.assert_allclose(
        results["out"], to_numpy(model.step(list(x))["_out"]), atol=1e-5
    )


def with_step_factors():
    """A network whose normalisation has another factor at each time step."""
    inputs, layer = (
        keras.Input((6,), name="frame"),
        rsnn.layers.TemporalEffectiveBatchNormalization(T),
    )
    spikes = rsnn.layers.LIF(threshold=0.3)(layer(layers.Dense(8)(inputs)))
    layer.step_factors.assign([1.0, -0.5, 2.0, 0.7])
    return keras.Model(inputs, layers.Dense(3)(spikes))


@pytest.mark.parametrize("format", FORMATS)
def test_factors_of_each_time_step_are_exported(format, tmp_path):
    x = data(5)[0] + 0.1
    model = spiking(with_step_factors(), T)
    path = tmp_path / f"step{SUFFIXES[format]}"
    states = rsnn.export_step(model, path, format, batch_size=5, verbose=False)
    step = function_of(path, format)
    for _ in range(T):
        results = step({"frame": x, **states})
        np.testing.assert_allclose(
            results["output"], to_numpy(model.step(x)), rtol=0, atol=1e-5
        )
        states = {name: results[f"next_{name}"] for name in states}
    for step_mode in ("multi", "single") if format == FORMATS[0] else ("single",):
        model = spiking(with_step_factors(), T, step_mode=step_mode)
        outputs = outputs_of(export(model, tmp_path, format), format, x)
        np.testing.assert_allclose(
            outputs, model.predict(x, verbose=0), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("policy", ["mixed_float16", "float16"])
def test_half_precision_is_exported(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,))
    x = rsnn.layers.ParametricLIF(threshold=0.4, learn_threshold=True)(
        layers.Dense(8)(inputs)
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), T)
    x = data(5)[0].astype(inputs.dtype)
    format = FORMATS[0]
    path = export(model, tmp_path, format)
    outputs = outputs_of(path, format, x)
    assert str(outputs.dtype) == "float16"
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=0, atol=2e-3)


def test_a_folded_model_is_exported(tmp_path):
    x, y = data()
    model = compiled(spiking(dense(), T))
    model.fit(x, y, verbose=0)
    folded = rsnn.fold_batch_normalization(model, verbose=False)
    path = export(folded, tmp_path, FORMATS[0])
    np.testing.assert_allclose(
        outputs_of(path, FORMATS[0], x), model.predict(x, verbose=0), rtol=0, atol=1e-5
    )


def noisy():
    inputs = keras.Input((6,))
    return keras.Model(
        inputs,
        layers.Dense(3)(rsnn.layers.IF()(rsnn.layers.BernoulliEncoder(seed=0)(inputs))),
    )


@pytest.mark.skipif(
    BACKEND == "torch", reason="Keras exports a SavedModel from TensorFlow and JAX"
)
def test_a_random_encoder_draws_anew_in_each_call_of_a_saved_model(tmp_path):
    import tensorflow as tf

    path = export(spiking(noisy(), T), tmp_path, "tf_saved_model")
    loaded, x = tf.saved_model.load(str(path)), np.full((5, 6), 0.5, "float32")
    assert not np.array_equal(loaded.serve(x), loaded.serve(x))


class Noise(layers.Layer):
    """Draws in inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        return inputs + keras.random.uniform(ops.shape(inputs), seed=self.generator)


def test_a_layer_that_draws_in_inference_does_so_in_the_graph_of_a_step():
    inputs = keras.Input((6,), name="frame")
    graph = StepGraph(
        keras.Model(inputs, Noise()(rsnn.layers.LIF(name="lif")(inputs))),
        T,
        2,
        named=True,
    )
    given = {"frame": np.zeros((2, 6), "float32"), **graph.start}
    first, second = (to_numpy(graph(given)["output"]) for _ in range(2))
    assert set(graph.start) == {"lif_membrane"}
    assert np.all(first > 0.0)
    assert not np.array_equal(first, second)


def test_random_encoders_are_an_error_where_a_file_cannot_hold_their_state(tmp_path):
    format = {"tensorflow": "litert", "torch": "onnx"}.get(BACKEND)
    if format:
        with pytest.raises(
            ValueError,
            match=f"format='{format}'` cannot hold .* layer 'bernoulli_encoder.*' .* "
            "Draw them outside",
        ):
            export(spiking(noisy(), T), tmp_path, format)
    with pytest.raises(
        ValueError,
        match=r"must not have hidden states .* layer 'bernoulli_encoder.*' of type "
        r"BernoulliEncoder",
    ):
        rsnn.export_step(spiking(noisy(), T), tmp_path / "step", FORMATS[0])


def test_a_format_that_a_backend_does_not_offer_is_an_error_that_names_another_backend(
    tmp_path,
):
    format, elsewhere = {
        "tensorflow": ("torch", "torch"),
        "jax": ("litert", "tensorflow"),
        "torch": ("tf_saved_model", "tensorflow"),
    }[BACKEND]
    message = (
        f"format='{format}'` is not available on the backend '{BACKEND}', .* "
        f"KERAS_BACKEND={elsewhere}"
    )
    with pytest.raises(ValueError, match=message):
        export(spiking(timesteps=T), tmp_path, format)
    with pytest.raises(
        ValueError,
        match=r"`format` must be one of 'tf_saved_model', 'onnx', .* Received: "
        r"format='h5'",
    ):
        spiking(timesteps=T).export(tmp_path / "model", format="h5")
    with pytest.raises(
        ValueError,
        match=r"`format` must be one of 'tf_saved_model', 'onnx', 'litert'\. Received: "
        r".*'torch'",
    ):
        rsnn.export_step(spiking(timesteps=T), tmp_path / "step", "torch")


def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnx"}[BACKEND]
    command = (
        "pip install jax2onnx"
        if BACKEND == "jax"
        else r'python -m pip install .*"onnx>='
    )
    with pytest.raises(
        ImportError,
        match=f"format='onnx'` needs the package {package} on the backend "
        f"'{BACKEND}'.* {command}",
    ):
        export(spiking(timesteps=T), tmp_path, "onnx")


@pytest.mark.skipif(
    BACKEND == "jax", reason="JAX offers no format without half precision"
)
def test_a_dtype_that_runtimes_do_not_have_is_an_error(tmp_path):
    usual = {
        "tensorflow": ("litert", "mixed_float16"),
        "torch": ("onnx", "mixed_bfloat16"),
    }[BACKEND]
    for format, policy in (usual, ("openvino", "mixed_bfloat16")):
        keras.config.set_dtype_policy(policy)
        with pytest.raises(
            ValueError,
            match=rf"format='{format}'` .* compute in {policy[6:]}, "
            r".*_dtype_policy\('float32'\)",
        ):
            export(spiking(timesteps=T), tmp_path, format)


def test_a_step_of_unknown_shape_and_other_mistakes_are_errors(tmp_path):
    inputs = keras.Input((None, 4))
    network = keras.Model(
        inputs, layers.GlobalAveragePooling1D()(rsnn.layers.IF()(inputs))
    )
    with pytest.raises(
        ValueError,
        match=r"must know the shape of its inputs.* of shape \(None, None, 4\)",
    ):
        rsnn.export_step(spiking(network, T), tmp_path / "step", FORMATS[0])
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        rsnn.export_step(network, tmp_path / "step")
    with pytest.raises(ValueError, match="`batch_size` must be 1 or more"):
        rsnn.export_step(
            spiking(timesteps=T), tmp_path / "step", FORMATS[0], batch_size=0
        )


def test_a_folder_that_is_missing_is_an_error_before_anything_is_done(
    tmp_path, monkeypatch
):
    def work(*_, **__):
        raise AssertionError("the network was exported before the error")

    monkeypatch.setattr(keras.Model, "export", work)
    monkeypatch.setattr("keras_ratesnn._steps.export_step.StepGraph", work)
    model, path = spiking(timesteps=T), tmp_path / "none" / "model.onnx"
    for export_to in (
        model.export,
        lambda *arguments: rsnn.export_step(model, *arguments),
    ):
        with pytest.raises(
            FileNotFoundError,
            match=r"`filepath` must be a file in a folder that "
            rf"exists.*{path}.*Make it",
        ):
            export_to(path, "onnx")
        with pytest.raises(
            IsADirectoryError, match=r"`filepath` must be a file.*which is a folder"
        ):
            export_to(tmp_path, "onnx")


@pytest.mark.skipif(
    BACKEND != "jax", reason="the converters of the other backends take time loops"
)
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_time_loops_are_unrolled_for_the_converter_from_jax_to_onnx(step_mode):
    import jax

    model = spiking(timesteps=6, step_mode=step_mode)
    x, _ = data()

    def operations():
        return str(jax.make_jaxpr(lambda x: model(x, training=False))(x))

    assert "while[" in operations() or "scan[" in operations()
    with export_formats.exporting("onnx"):
        found = operations()
    assert "while[" not in found
    assert "scan[" not in found


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch has additions with a factor")
def test_exported_programs_have_no_additions_with_a_factor_some_converters_lack():
    import torch

    x, _ = data()
    program = torch.export.export(spiking(), (torch.from_numpy(x),))
    assert "aten.add" in str(program.graph)
    assert "alpha" not in str(program.graph)
