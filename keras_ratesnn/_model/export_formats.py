"""The formats that Keras exports to on each backend, and which networks they can
hold."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import keras

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import checks, keras_internals, optional_packages
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.quantization import check_not_quantized

_PACKAGES: dict[str, dict[str, str | None]] = {
    "tf_saved_model": {"tensorflow": None, "jax": "tensorflow"},
    "onnx": {"torch": "onnx", "tensorflow": "tf2onnx", "jax": "jax2onnx"},
    "litert": {"tensorflow": None, "torch": "litert_torch"},
    "openvino": {"tensorflow": "openvino", "torch": "openvino"},
    "torch": {"torch": None},
}
"""The backends on which Keras offers a format, and the package that it needs there. The
first one needs no unusual packages. OpenVINO's converter fails on JAX's graphs."""

FORMATS = tuple(_PACKAGES)

_EXTRAS = {
    "tensorflow": "tensorflow",
    "onnx": "export",
    "tf2onnx": "export",
    "openvino": "export",
}
"""The extras that have these packages."""

_NO_KERNELS = {
    "litert": ("float16", "bfloat16", "float64"),
    "onnx": ("bfloat16",),
    "openvino": ("bfloat16", "float64"),
}
"""The dtypes in which the usual runtimes of a format cannot compute."""

_QUANTIZED = (
    ("tf_saved_model", "tensorflow"),
    ("tf_saved_model", "jax"),
    ("onnx", "tensorflow"),
)
"""Where the layers that Keras has quantized can be exported."""


def check(
    network: keras.Model,
    filepath: str | os.PathLike[str],
    format: str,
    formats: Iterable[str] = FORMATS,
) -> str:
    """Returns the string of a path; raises an error unless a network can be exported
    there to a format on this backend.

    Args:
        network: A Functional model.
        filepath: The argument of the user.
        format: The argument of the user.
        formats: The formats to choose from. Defaults to all.

    Raises:
        TypeError: If `filepath` is neither a string nor a path.
        ValueError: If the format is unknown, not available on this backend, or cannot
            hold the network.
        ImportError: If a package is missing.
        OSError: If a file cannot be there: there is no such folder, or it is a folder
            itself.
    """
    checks.one_of("format", format, formats)
    # A SavedModel is a folder, which is made with those that it is in.
    path = (checks.path if format == "tf_saved_model" else checks.file_to_write)(
        "filepath", filepath
    )
    here = keras.backend.backend()
    offered = _PACKAGES[format]
    if here not in offered:
        raise ValueError(
            f"`format={format!r}` is not available on the backend {here!r}, only on "
            f"{' and '.join(offered)}. {_elsewhere(format)}"
        )
    if (format, here) == ("tf_saved_model", "jax"):
        keras_internals.check_saved_models_of_jax()
    package = offered[here]
    if package is not None and importlib.util.find_spec(package) is None:
        command = f"pip install {package.replace('_', '-')}"
        if package in _EXTRAS:
            command = optional_packages.how_to_install(_EXTRAS[package])
        elsewhere = (
            ""
            if _easiest_backend(format) == here
            else f", or change the backend. {_elsewhere(format)}"
        )
        raise ImportError(
            f"`format={format!r}` needs the package {package} on the backend {here!r}. "
            f"Install it, {command}{elsewhere}"
        )
    _check_precision(network, format, here)
    _check_quantization(network, format, here)
    if format != "tf_saved_model":
        check_noise(
            network,
            f"`format={format!r}` cannot hold the state of a random generator; "
            'format="tf_saved_model" can.',
        )
    return path


def _easiest_backend(format):
    return next(iter(_PACKAGES[format]))


def _elsewhere(format):
    return (
        "Save the model with model.save('model.keras'), load it in a process with "
        f"the environment variable KERAS_BACKEND={_easiest_backend(format)}, and "
        "export it there: the outputs are the same."
    )


def _check_precision(network, format, backend):
    for layer in keras_internals.layers_inside(network):
        if layer.compute_dtype in _NO_KERNELS.get(format, ()):
            raise ValueError(
                f"`format={format!r}` is not available for layers that compute in "
                f"{layer.compute_dtype}, on the backend {backend!r} or any other: its "
                f"runtimes cannot. Received: layer {layer.name!r} with the policy "
                f"{layer.dtype_policy.name!r}. Make the network again with "
                "keras.config.set_dtype_policy('float32'), and give it the same "
                "weights with set_weights(network.get_weights())."
            )


def _check_quantization(network, format, backend):
    if (format, backend) not in _QUANTIZED:
        check_not_quantized(
            network,
            f"`format={format!r}` is not available for layers that Keras has "
            f"quantized, on the backend {backend!r}.",
            "Export the model before it is quantized, and let the tools of the format "
            "quantize the file: for LiteRT, export(..., "
            "optimizations=[tf.lite.Optimize.DEFAULT]); for ONNX, "
            "onnxruntime.quantization.quantize_dynamic.",
        )


def check_noise(network: keras.Model, reason: str) -> None:
    """Raises ValueError if a layer of a network draws random numbers in inference.

    Args:
        network: A Functional model.
        reason: String, why it must not.
    """
    for layer in keras_internals.layers_inside(network):
        if layer_kinds.is_random(layer, training=False):
            raise ValueError(
                f"{reason} Received: layer {layer.name!r} of type "
                f"{type(layer).__name__}, which draws random numbers. Draw them "
                "outside of the graph: leave the layer out of the network, and pass "
                "its outputs as the input, one frame for each step."
            )


def signature(
    network: keras.Model, given: Any, with_time: Collection[str], frames: int
) -> Any:
    """The `input_signature` of `keras.Model.export`, in which inputs have the names of
    the network's.

    Args:
        network: A Functional model.
        given: The argument of the user.
        with_time: Names of inputs that have a time axis if none was given.
        frames: Integer, the length of that axis.
    """
    inputs = keras_internals.inputs_structure(network)

    def spec(x):
        time = (frames,) if keras_internals.name_of_input(x) in with_time else ()
        return keras.InputSpec(
            shape=(x.shape[0], *time, *x.shape[1:]), dtype=x.dtype, name=x.name
        )

    def named(spec, x):
        if not isinstance(spec, keras.InputSpec):
            return spec
        return keras.InputSpec(
            shape=spec.shape, dtype=spec.dtype, name=spec.name or x.name
        )

    if given is None:
        specs = keras.tree.map_structure(spec, inputs)
        return specs if isinstance(specs, list) and len(specs) == 1 else [specs]
    specs = keras.tree.flatten(given)
    wanted = keras.tree.flatten(inputs)
    if len(specs) != len(wanted):
        return given
    return keras.tree.pack_sequence_as(given, list(map(named, specs, wanted)))


def any_batch(format: str, input_signature: Any) -> dict[str, Any]:
    """The arguments of `keras.Model.export` with which a graph takes batches of any
    size, where that is not the default.

    Args:
        format: String.
        input_signature: As for `keras.Model.export`.
    """
    specs = keras.tree.flatten(input_signature)
    is_open = format == "torch" and len(specs) == 1 and specs[0].shape[0] is None
    return {"dynamic_shapes": {0: engine.any_size("batch")}} if is_open else {}


@contextlib.contextmanager
def exporting(format: str) -> Iterator[None]:
    """A context for Keras' exporters, without warnings about how Keras uses them, which
    users cannot change.

    Args:
        format: String.
    """
    with engine.exporting(format), warnings.catch_warnings():
        for message in (
            "The `native_serialization` parameter is deprecated",
            ".*legacy TorchScript-based ONNX export",
            "The feature will be removed|Constant folding - ",
            "In the future `np.object` will be defined",
        ):
            warnings.filterwarnings("ignore", message)
        # Shapes are treated as constants, which they are. Warnings from custom layers
        # are shown. PyTorch names modules by file.
        message = (
            ".*(might cause the trace to be incorrect|registered as constants in "
            "the trace)"
        )
        warnings.filterwarnings(
            "ignore", message, module=r".*\b(keras|keras_ratesnn|torch)[./\\]"
        )
        yield
