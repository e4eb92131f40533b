"""export_nir: writes a network as a NIR file."""

import os

import keras

from keras_ratesnn import _graph, _lowered
from keras_ratesnn._core import checks, optional_packages, whole_files
from keras_ratesnn._core.names import listed
from keras_ratesnn._lowered.lowering import Lowered
from keras_ratesnn._model.weight_checks import check_finite
from keras_ratesnn.conversion.folding import fold_batch_normalization
from keras_ratesnn.nir import _continuous_time
from keras_ratesnn.nir._graph_writer import REFUSALS, GraphWriter
from keras_ratesnn.spiking_model import SpikingModel


def export_nir(
    model: keras.Model, path: str | os.PathLike[str], dt: float = _continuous_time.DT
) -> None:
    """Writes a network as a NIR file, for neuromorphic chips and other simulators.

    NIR, the Neuromorphic Intermediate Representation, is a graph of layers and neurons
    in continuous time. The file says what the network does in inference at one time
    step after the other. It does not say for how many steps it runs, nor that a
    `SpikingModel` returns the time mean of the outputs.

    Batch normalisation is folded into the layers before it, see
    `fold_batch_normalization`, and factors of `Rescaling` into the layers after it;
    what cannot be folded becomes nodes of its own. Dropout is left out. NIR has
    channels first: weights and the order of flattened features are converted.

    Neurons have the time constant τ = dt / (1 − decay) and the resistance R = τ / dt,
    or 1 with `decay_input`. In NIR a neuron spikes above its threshold, here at the
    threshold, so the file has the number next below the threshold. NIR does not say
    whether a spike sets the membrane to `v_reset` or subtracts the threshold: most
    other libraries do the first. The metadata of each neuron node says it (`reset`),
    and `dt` and `surrogate`. A line is printed if there are neurons that some programs
    run in another way: all but those with `reset="hard"` and, if they leak,
    `decay_input=True`.

    Example:

    >>> import tempfile
    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 2)),
    ...         keras.layers.Conv2D(4, 3, use_bias=False),
    ...         keras.layers.BatchNormalization(),
    ...         keras_ratesnn.layers.LIF(reset="hard", decay_input=True),
    ...         keras.layers.Flatten(),
    ...         keras.layers.Dense(10),
    ...     ]
    ... )
    >>> path = tempfile.mkdtemp() + "/network.nir"
    >>> keras_ratesnn.deploy.export_nir(network, path)
    >>> model = keras_ratesnn.deploy.import_nir(path, timesteps=4)
    >>> [type(layer).__name__ for layer in model.network.layers]
    ['InputLayer', 'Conv2D', 'LIF', 'Flatten', 'Dense']

    Args:
        model: A `SpikingModel`, or a Functional or Sequential model, with one input and
            one output. It may contain `Dense`, `Conv1D`, `Conv2D`, their depthwise and
            weight-standardised variants, `AveragePooling2D`, `GlobalAveragePooling2D`,
            `ZeroPadding` before convolutions, `Flatten`, `Add`, `Rescaling`, neurons
            such as `LIF`, and `LeakyReadout`, whose `value` is in the metadata.
        path: String or path, where to write. A file that is there is replaced once the
            new one is complete.
        dt: Float > 0, the length of a time step in seconds. Defaults to `1e-4`, which
            other libraries assume, too.

    Raises:
        ImportError: If the package nir is not installed.
        TypeError: If `model` is neither a `SpikingModel` nor Functional or Sequential,
            or `path` neither a string nor a path.
        OSError: If there is no such folder, `path` is a folder itself, or the file
            cannot be written.
        ValueError: If NIR cannot describe a layer, which the message names, or a weight
            is NaN or infinite; nothing is written then.

    Source: Pedersen et al., "Neuromorphic intermediate representation: A unified
    instruction set for interoperable brain-inspired computing", Nature
    Communications 2024.
    """
    path = checks.file_to_write("path", path)
    nir = optional_packages.imported("nir", "export_nir", "nir")
    dt = checks.real(
        "dt", dt, above=0, advice="It is the length of a time step in seconds."
    )
    network = model.network if isinstance(model, SpikingModel) else model
    graph = GraphWriter(nir, _lowered_network(network), dt).run()
    check_finite(model.variables)
    whole_files.replace(path, lambda part: nir.write(part, graph))
    metadata = {
        name: node.metadata
        for name, node in graph.nodes.items()
        if "reset" in node.metadata
    }
    differing = [
        name
        for name, said in metadata.items()
        if said["reset"] == "soft" or not (said["decay_input"] or said["layer"] == "IF")
    ]
    if differing:
        print(
            f"Some programs run {listed(differing)} in another way: see Train for NIR "
            "in docs/deploy.md."
        )


def _lowered_network(network: keras.Model) -> Lowered:
    """A lowered network with folded batch normalisation."""
    # Names what cannot be described, before the network is rebuilt.
    lowered = _lowered.lower(network, REFUSALS)
    calls = _graph.whole_of(_graph.as_graph(network)).calls
    if all(call.kind.normalization is None for call in calls):
        return lowered
    return _lowered.lower(fold_batch_normalization(network, verbose=False), REFUSALS)
