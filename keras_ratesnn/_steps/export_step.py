"""`export_step`: one time step of a model as a file, for inputs that arrive step by
step on a device."""

import os
from collections.abc import Sequence

import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core import checks
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model import export_formats
from keras_ratesnn._steps.step_graph import StepGraph
from keras_ratesnn.spiking_model import SpikingModel, checked_model

STEP_FORMATS = ("tf_saved_model", "onnx", "litert")


def export_step(
    model: SpikingModel,
    filepath: str | os.PathLike[str],
    format: str = "tf_saved_model",
    batch_size: int | None = None,
    verbose: bool | None = None,
) -> dict[str, np.ndarray]:
    """Exports one time step of a model, in inference, with the states of its neurons as
    inputs and outputs.

    A device runs the file once a step, and passes the next states that it returns to
    the next step. The outputs are those of `SpikingModel.step`; the mean of T of them
    is the output of the model, or the last one after a `TimeMean`. After a
    `LeakyReadout` they follow its membrane, whose `value` over time is for the device
    to take. A sequence may be longer than `timesteps`.

    The tensors have names:

    * the inputs of the network, without time, as in `keras.Input(name=...)`, or
      `input`;
    * the states of each neuron layer, by its name and the keys of its cell's state:
      `lif_membrane`, `cu_ba_lif_current`. The integer `time_step` is one of them if a
      layer depends on the step, as `LatencyEncoder` does;
    * `output`, or the keys of a dict of outputs; and the next states,
      `next_lif_membrane` etc.

    A SavedModel and a LiteRT file have the signature `serving_default` with these
    names.

    Example:

    >>> import tempfile
    >>> inputs = keras.Input((2,))
    >>> network = keras.Model(
    ...     inputs,
    ...     keras.layers.Dense(3)(keras_ratesnn.layers.CuBaLIF(name="hidden")(inputs)),
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> format = "onnx" if keras.backend.backend() == "torch" else "tf_saved_model"
    >>> states = keras_ratesnn.deploy.export_step(
    ...     model, tempfile.mkdtemp() + "/step.onnx", format, verbose=False
    ... )
    >>> for name, state in states.items():
    ...     print(name, state)
    hidden_current [[0. 0.]]
    hidden_membrane [[0. 0.]]

    Args:
        model: A `SpikingModel`.
        filepath: String or path, where to write. It ends in `.tflite` for LiteRT.
        format: `"tf_saved_model"` (on TensorFlow and JAX), `"onnx"` (on PyTorch and
            TensorFlow) or `"litert"` (on TensorFlow). Defaults to `"tf_saved_model"`.
        batch_size: Integer >= 1, the number of sequences in a batch. Defaults to
            `None`: any.
        verbose: Boolean, whether to print a message. Defaults to `None`: Keras decides.

    Returns:
        Dict of the states before the first step, by name: arrays for `batch_size`
        sequences, or one. For neurons of the library they are zeros, apart from
        membranes with an `initial_membrane`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the format is not available on this backend or for this network,
            or the network has inputs of unknown shape or layers that draw random
            numbers.
        ImportError: If a package is missing.
        OSError: If a file cannot be at `filepath`: there is no such folder, or it is a
            folder itself.
    """
    checked_model(model)
    if batch_size is not None:
        batch_size = checks.positive_integer("batch_size", batch_size)
    network = _graph.as_graph(model.network)
    _graph.check_steps(network, "`export_step`")
    _graph.check_samples_apart(network, "An exported graph")
    export_formats.check_noise(
        network, "`model` must not have hidden states to be exported as one step."
    )
    path = export_formats.check(network, filepath, format, STEP_FORMATS)
    graph = StepGraph(network, model.timesteps, batch_size, named=format != "onnx")
    with export_formats.exporting(format), engine.no_gradient():
        graph.export(path, format, verbose, [graph.signature])
    if format == "onnx":
        _name_outputs(path, graph.interface.output_names)
    return graph.interface.start


def _name_outputs(filepath: str, names: Sequence[str]) -> None:
    """Gives the outputs of the graph in an ONNX file, in order, the given names."""
    import onnx

    model = onnx.load(filepath)
    # By nodes of their own: an output may be used inside the graph, or be two outputs.
    for output, name in zip(model.graph.output, names, strict=True):
        model.graph.node.append(
            onnx.helper.make_node("Identity", [output.name], [name])
        )
        output.name = name
    onnx.save(model, filepath)
