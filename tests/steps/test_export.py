"""Exported files give the outputs of the model in the runtimes of their formats: all
time steps at once, and step by step. That of each layer is tested in
tests/contract."""

import importlib.util

import keras
import numpy as np
import pytest
from exported import SUFFIXES, function_of, outputs_of
from helpers import (
    BACKEND,
    Batches,
    both_step_modes,
    chain,
    compiled,
    data,
    not_on,
    only_on,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers

from keras_ratesnn import deploy
from keras_ratesnn.layers import (
    ALIF,
    IF,
    LIF,
    BernoulliEncoder,
    CuBaLIF,
    LatencyEncoder,
    MaskedPSN,
    ParametricLIF,
    TemporalEffectiveBatchNormalization,
)

FORMATS = {
    "tensorflow": ["tf_saved_model", "litert", "onnx"],
    "jax": ["tf_saved_model"],
    "torch": ["onnx"],
}[BACKEND]
FIRST, LAST = FORMATS[0], FORMATS[-1]
MORE_FORMATS = {"tensorflow": ["openvino"], "torch": ["openvino", "torch"], "jax": []}
ALL_FORMATS = [*FORMATS, *MORE_FORMATS[BACKEND]]
T = 4
every_format = pytest.mark.parametrize("format", FORMATS)
on_pytorch = only_on("torch", "a format of PyTorch")
not_on_jax = not_on("jax", "JAX offers neither OpenVINO nor LiteRT")


def every_neuron():
    """A small network with each kind of neurons of the library."""
    inputs = keras.Input((6, 6, 2), name="frame")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = LIF(threshold=0.3, name="lif")(layers.BatchNormalization()(x))
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    settings = {"reset": "hard", "decay_input": True}
    neurons = [
        IF(threshold=0.3, initial_membrane=0.15, name="if"),
        ParametricLIF(threshold=0.3, name="parametric", **settings),
        CuBaLIF(threshold=0.3, reset_delay=True, name="cuba"),
        ALIF(threshold=0.3, learn_threshold=True, initial_membrane=-0.1, name="alif"),
    ]
    parts = [neuron(layers.Dense(4)(x)) for neuron in neurons]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(parts)))


def dense():
    return chain(
        layers.Dense(8),
        layers.BatchNormalization(),
        LIF(threshold=0.4),
        layers.Dense(3),
        name="frame",
    )


def with_step_factors():
    """A network whose normalisation has another factor at each time step."""
    normalization = TemporalEffectiveBatchNormalization(T)
    parts = layers.Dense(8), normalization, LIF(threshold=0.3)
    network = chain(*parts, layers.Dense(3), name="frame")
    normalization.step_factors.assign([1.0, -0.5, 2.0, 0.7])
    return network


def noisy():
    encoder = BernoulliEncoder(seed=0)
    return spiking(chain(encoder, IF(), layers.Dense(3)), T)


def export(model, folder, format, **kwargs):
    path = folder / f"model{SUFFIXES[format]}"
    model.export(path, format=format, verbose=False, **kwargs)
    return path


def signature_of(x, **kwargs):
    shape = (None, *x.shape[1:])
    return {
        "input_signature": [keras.InputSpec(shape=shape, dtype="float32", **kwargs)]
    }


def assert_outputs(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def check_file(model, x, folder, format, batches=(5,), **kwargs):
    """Backends and runtimes sum in different orders: the inputs bring no membrane so
    near to a threshold that it matters."""
    function = function_of(export(model, folder, format, **kwargs), format)
    expected = model.predict(x, verbose=0)
    assert expected.std(axis=0).min() > 0.01
    for batch in batches:
        (outputs,) = function(x[:batch]).values()
        assert_outputs(outputs, expected[:batch])


FILES = [
    *((format, every_neuron, "multi", False) for format in FORMATS),
    (FORMATS[:2][-1], every_neuron, "single", True),
]
if BACKEND != "jax":
    FILES += [
        ("openvino", every_neuron, "multi", False),
        ("openvino", dense, "single", False),
    ]
if BACKEND == "torch":
    FILES.append(("torch", dense, "multi", False))


@pytest.mark.parametrize(("format", "make", "step_mode", "timed"), FILES)
def test_an_exported_graph_gives_the_outputs_for_batches_of_any_size(
    format, make, step_mode, timed, tmp_path
):
    model = spiking(make(), T, step_mode=step_mode)
    shape = model.network.input_shape[1:]
    x, _ = data(5, (T, *shape) if timed else shape)
    signature = signature_of(x) if timed else {}
    check_file(model, x, tmp_path, format, (1, 5), **signature)


@pytest.mark.parametrize("format", ALL_FORMATS)
def test_a_model_is_exported_for_inputs_as_last_fitted_with_under_their_names(
    format, tmp_path
):
    (x, y), model = data(6, (T, 6)), compiled(spiking(dense(), T))
    model.fit(x[:, 0], y, verbose=0)
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    model.predict(x[:, 0], verbose=0)
    models = [model]
    if format == FIRST:
        # Files, and models that are made of a model, are fitted as it is.
        folded = deploy.fold_batch_normalization(model, verbose=False)
        models += [saved_and_loaded(model), folded]
    for made in models:
        function = function_of(export(made, tmp_path, format), format)
        (outputs,) = function({"frame": x}).values()
        assert_outputs(outputs, expected)
    model.fit(Batches(x[:, 0], y), verbose=0)
    path = export(model, tmp_path, format, input_signature=None)
    expected = model.predict(x[:, 0], verbose=0)
    assert_outputs(outputs_of(path, format, x[:, 0]), expected)


def test_a_model_that_was_never_fitted_is_exported_for_inputs_as_first_called(tmp_path):
    (x, _), model = data(6, (T, 6)), spiking(dense(), T)
    model.predict(x, verbose=0)
    check_file(model, x, tmp_path, FIRST)


PADDED = [(LAST, np.nan), (LAST, np.inf), *(("openvino", -9.0),) * (BACKEND != "jax")]


@pytest.mark.parametrize(("format", "value"), PADDED)
def test_padding_is_left_out_in_an_exported_graph(format, value, tmp_path):
    """In images, and if it is no number."""
    images = layers.Conv2D(4, 2), LIF(threshold=0.3), layers.Flatten()
    network = chain(*images, layers.Dense(3), shape=(2, 2, 3))
    model, (x, _) = spiking(network, T, mask_value=value), data(4, (T, 2, 2, 3))
    x[0, 2:] = x[1, :1] = value
    check_file(model, x, tmp_path, format, **signature_of(x, name="frames"))


@on_pytorch
def test_a_model_around_a_model_becomes_a_program_of_pytorch(tmp_path):
    outer = chain(spiking(dense(), T), layers.Dense(2))
    check_file(outer, data(5)[0], tmp_path, "torch", (1,))


def exported_step(model, folder, format, batch_size=None):
    """The first states and the function of a step."""
    path = folder / f"step{SUFFIXES[format]}"
    start = deploy.export_step(model, path, format, batch_size, verbose=False)
    return start, function_of(path, format)


def check_steps(model, states, step, frames):
    """Frames are dicts of the names of inputs to arrays; returns the last states."""
    for frame in frames:
        results = step({**frame, **states})
        states = {name: results.pop(f"next_{name}") for name in states}
        given = list(frame.values())
        expected = to_numpy(model.step(given if len(given) > 1 else given[0]))
        if not isinstance(expected, dict):
            expected = {"output": expected}
        assert len(results) == len(expected)
        for name, outputs in expected.items():
            assert_outputs(results[name.strip("_")], outputs)
    return states


@pytest.mark.parametrize("format", FORMATS[:2])
def test_exported_steps_are_those_of_the_model(format, tmp_path):
    x, _ = data(5, (T, 6, 6, 2))
    model = spiking(every_neuron(), T)
    start, step = exported_step(model, tmp_path, format)
    names = "lif_membrane if_membrane parametric_membrane cuba_current cuba_membrane "
    names += "cuba_spikes alif_membrane alif_adaptation"
    assert list(start) == names.split()
    at_rest = {"if_membrane": 0.15, "alif_membrane": -0.1}
    for name, state in start.items():
        assert (state == np.float32(at_rest.get(name, 0.0))).all()
    states = {name: np.repeat(state, 5, axis=0) for name, state in start.items()}
    check_steps(model, states, step, [{"frame": x[:, t]} for t in range(T)])


def test_an_exported_step_counts_the_steps_where_a_layer_depends_on_them(tmp_path):
    inputs = [keras.Input((4,), name="x 1"), keras.Input((4,), name="other")]
    spikes = LatencyEncoder()(inputs[0])
    shared = IF(name="twice")
    twice = shared(layers.Add()([shared(spikes), inputs[1]]))
    network = keras.Model(inputs, {"first": spikes, "sum": twice})
    model = spiking(network, T)
    start, step = exported_step(model, tmp_path, FIRST, batch_size=2)
    shapes = {name: state.shape for name, state in start.items()}
    membranes = {"twice_membrane": (2, 4), "twice_membrane_1": (2, 4)}
    assert shapes == {"time_step": (), **membranes}
    x, other = np.random.default_rng(0).random((2, 2, 4), dtype="float32")
    states = check_steps(model, start, step, [{"x_1": x, "other": other}] * T)
    assert states["time_step"] == T


def masked_neurons():
    neurons = MaskedPSN(T, order=2, threshold=0.1)
    return chain(neurons, name="frame")


@pytest.mark.parametrize("make", [masked_neurons, with_step_factors])
def test_layers_with_a_factor_for_each_step_are_exported_step_by_step(make, tmp_path):
    model = spiking(make(), T)
    start, step = exported_step(model, tmp_path, FIRST, batch_size=5)
    x, _ = data(T, (5, 6))
    check_steps(model, start, step, [{"frame": frame} for frame in x])


def test_convolutions_over_three_axes_are_exported(tmp_path):
    network = chain(
        layers.Conv3D(3, 2, padding="same"),
        LIF(),
        layers.MaxPooling3D(2),
        layers.Conv3DTranspose(2, 2, strides=2),
        layers.GlobalAveragePooling3D(),
        shape=(5, 3, 4, 2),
    )
    model, (x, _) = spiking(network, T), data(5, (5, 3, 4, 2))
    outputs = outputs_of(export(model, tmp_path, FIRST), FIRST, x)
    expected = model.predict(x, verbose=0)
    assert expected.std() > 0.01
    assert_outputs(outputs, expected)


@every_format
def test_names_that_a_format_refuses_become_names_like_them(format, tmp_path):
    names = {"ähnlich": "hnlich", "_x": "x", "x": "x_1", "1 y": "1_y", "ä": "tensor"}
    inputs = [keras.Input((3,), name=name) for name in names]
    outputs = {"_out": IF(name="_if")(layers.Add()(inputs))}
    model = spiking(keras.Model(inputs, outputs), T)
    start, step = exported_step(model, tmp_path, format, batch_size=2)
    assert list(start) == ["if_membrane"]
    x = np.random.default_rng(0).random((5, 2, 3), dtype="float32")
    check_steps(model, start, step, [dict(zip(names.values(), x, strict=True))])


@not_on("torch", "Keras exports a SavedModel from TensorFlow and JAX")
def test_a_random_encoder_draws_anew_in_each_call_of_a_saved_model(tmp_path):
    import tensorflow as tf

    path = export(noisy(), tmp_path, "tf_saved_model")
    loaded, x = tf.saved_model.load(str(path)), np.full((5, 6), 0.5, "float32")
    assert not np.array_equal(loaded.serve(x), loaded.serve(x))


def test_random_encoders_are_an_error_where_a_file_cannot_hold_their_state(tmp_path):
    layer = "layer 'bernoulli_encoder.*'"
    if BACKEND != "jax":
        format = {"tensorflow": "litert", "torch": "onnx"}[BACKEND]
        message = f"format='{format}'` cannot hold .* {layer} .* Draw them outside"
        with pytest.raises(ValueError, match=message):
            export(noisy(), tmp_path, format)
    message = f"must not have hidden states .* {layer} of type BernoulliEncoder"
    with pytest.raises(ValueError, match=message):
        deploy.export_step(noisy(), tmp_path / "step", FIRST)


def test_a_format_that_a_backend_does_not_offer_is_an_error_that_names_another_backend(
    tmp_path,
):
    format, elsewhere = {
        "tensorflow": ("torch", "torch"),
        "jax": ("litert", "tensorflow"),
        "torch": ("tf_saved_model", "tensorflow"),
    }[BACKEND]
    model = spiking(timesteps=T)
    message = f"format='{format}'` is not available on the backend '{BACKEND}', .* "
    with pytest.raises(ValueError, match=f"{message}KERAS_BACKEND={elsewhere}"):
        export(model, tmp_path, format)
    message = "`format` must be one of 'tf_saved_model', 'onnx', "
    with pytest.raises(ValueError, match=rf"{message}'litert'\. Received: .*'torch'"):
        deploy.export_step(model, tmp_path / "step", "torch")


def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnx"}[BACKEND]
    command = r'python -m pip install .*"onnx>='
    if BACKEND == "jax":
        command = "pip install jax2onnx"
    message = f"format='onnx'` needs the package {package} on the backend '{BACKEND}'"
    with pytest.raises(ImportError, match=f"{message}.* {command}"):
        export(spiking(timesteps=T), tmp_path, "onnx")


@not_on_jax
def test_a_dtype_that_runtimes_do_not_have_is_an_error(tmp_path):
    usual = ("onnx", "bfloat16") if BACKEND == "torch" else ("litert", "float16")
    for format, dtype in (usual, ("openvino", "bfloat16")):
        keras.config.set_dtype_policy(f"mixed_{dtype}")
        message = rf"format='{format}'` .* compute in {dtype}, .*_policy\('float32'\)"
        with pytest.raises(ValueError, match=message):
            export(spiking(timesteps=T), tmp_path, format)


def test_a_step_of_unknown_shape_and_other_mistakes_are_errors(tmp_path):
    network = chain(IF(), layers.GlobalAveragePooling1D(), shape=(None, 4))
    message = r"must know the shape of its inputs.* of shape \(None, None, 4\)"
    with pytest.raises(ValueError, match=message):
        deploy.export_step(spiking(network, T), tmp_path / "step", FIRST)
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        deploy.export_step(network, tmp_path / "step")


def test_a_folder_that_is_missing_is_an_error_before_anything_is_done(
    tmp_path, monkeypatch
):
    def work(*_, **__):
        raise AssertionError("the network was exported before the error")

    monkeypatch.setattr(keras.Model, "export", work)
    model, path = spiking(timesteps=T), tmp_path / "none" / "model.onnx"
    message = "`filepath` must be a file"
    missing = rf"{message} in a folder that exists.*{path}.*Make it"
    with pytest.raises(FileNotFoundError, match=missing):
        model.export(path, "onnx")
    for folder in (tmp_path, "."):
        with pytest.raises(IsADirectoryError, match=f"{message}.*which is a folder"):
            deploy.export_step(model, folder, "onnx")


@only_on("jax", "the converters of the other backends take time loops")
@both_step_modes
def test_time_loops_are_unrolled_for_the_converter_from_jax_to_onnx(
    step_mode, tmp_path, monkeypatch
):
    """The converter is not installed."""
    import jax

    model, (x, _) = spiking(timesteps=6, step_mode=step_mode), data()
    model(x)
    programs = []

    def traced(*_, **__):
        program = jax.make_jaxpr(lambda x: model(x, training=False))(x)
        programs.append(str(program))

    monkeypatch.setattr(keras.Model, "export", traced)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    traced()
    model.export(tmp_path / "model.onnx", "onnx")
    has_loops = ["while[" in program or "scan[" in program for program in programs]
    assert has_loops == [True, False]


@on_pytorch
def test_exported_programs_have_no_additions_with_a_factor_some_converters_lack():
    import torch

    x, _ = data()
    program = torch.export.export(spiking(), (torch.from_numpy(x),))
    assert "aten.add" in str(program.graph)
    assert "alpha" not in str(program.graph)
