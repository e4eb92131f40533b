"""import_nir: reads a network from a NIR file."""

import os
from typing import Literal

import keras

from keras_ratesnn._core import checks, time_axis
from keras_ratesnn._core.annotations import Config, Reset
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers.cells import RESETS
from keras_ratesnn.nir import _hdf5, _layouts, _topology
from keras_ratesnn.nir._neuron_nodes import NODES, NeuronReader
from keras_ratesnn.nir._to_layers import SPATIAL, LayerMaker, NodeOutput
from keras_ratesnn.spiking_model import SpikingModel


def import_nir(
    path: str | os.PathLike[str],
    timesteps: int,
    gradient: str | GradientMethod | Config = "rate",
    reset: Reset | None = None,
    dt: float | None = None,
    data_format: Literal["channels_first", "channels_last"] | None = None,
    reset_delay: bool | None = None,
) -> SpikingModel:
    """Reads a network from a NIR file, of this library or another one, as a
    `SpikingModel` that can run and be trained.

    NIR describes neurons in continuous time; a neuron gets the decay 1 − dt/τ. Where
    the input of a neuron has another factor than 1 (R dt/τ, and w_in dt/τ_syn), or its
    membrane rests at v_leak, its threshold and reset are converted to units in which
    the factor is 1 and it rests at 0. If R is 1, the neuron gets `decay_input=True`
    instead. Neurons start at rest. In NIR a neuron spikes above `v_threshold`, here at
    its threshold, which is the next larger number.

    The file may come from anywhere: only data is read, no code. Files that are damaged,
    that refer to other files or that declare more than they contain are refused before
    they take memory.

    Example: see `export_nir`.

    Args:
        path: String or path of the file. It may contain nodes of the types Affine,
            Linear, Conv1d, Conv2d, AvgPool2d, SumPool2d, Flatten, Scale, IF, LIF and
            CubaLIF, at the end I, LI and CubaLI, and graphs of them. The outputs of
            neurons may come back to them, through an Affine or Linear node, at the next
            step: a `Recurrent` layer. There may be no other loops.
        timesteps: Integer T >= 1, see `SpikingModel`.
        gradient: The training method, see `SpikingModel`. Defaults to `"rate"`.
        reset: `"soft"`, a spike subtracts the threshold, or `"hard"`, it sets the
            membrane to `v_reset`, for neurons whose metadata does not say it. Defaults
            to `None`: `"hard"`, with a warning.
        dt: Float > 0, the length of a time step in seconds, for neurons whose metadata
            does not say it. Defaults to `None`: `1e-4`, which other libraries assume,
            too.
        data_format: `"channels_last"` or `"channels_first"`: how the network will have
            images, and rows for convolutions. Defaults to `None`: as in
            `keras.config.image_data_format()`. Inputs of two or four axes that no layer
            convolves or pools stay as they are in the file.
        reset_delay: Boolean, whether a spike resets its neuron one step later, as in
            snnTorch unless its neurons were made with `reset_delay=False`, for neurons
            whose metadata does not say it. Neurons of snnTorch's class `Leaky` that
            reset to zero do so at once in either case, and are read so; its `RLeaky`
            does not. Defaults to `None`: `False`, with a warning if the file looks like
            one of snnTorch.

    Returns:
        A `SpikingModel`. Its layers have the names of the nodes.

    Raises:
        ImportError: If the package h5py, which comes with nir, is not installed.
        OSError: If the file cannot be opened.
        TypeError: If an argument has the wrong type.
        ValueError: If the file is not a NIR file or is damaged, or contains what this
            library cannot run: the message names the node; or if its metadata
            contradicts an argument.

    Source: Pedersen et al., "Neuromorphic intermediate representation: A unified
    instruction set for interoperable brain-inspired computing", Nature
    Communications 2024.
    """
    if reset is not None:
        checks.one_of("reset", reset, RESETS)
    if dt is not None:
        dt = checks.real(
            "dt", dt, above=0, advice="It is the length of a time step in seconds."
        )
    if reset_delay is not None:
        checks.boolean("reset_delay", reset_delay)
    data_format = (
        keras.config.image_data_format() if data_format is None else data_format
    )
    checks.one_of(
        "data_format", data_format, (_layouts.CHANNELS_FIRST, _layouts.CHANNELS_LAST)
    )
    connected = _topology.in_order(_hdf5.read(path))
    if not any(entry.node.type in NODES for entry in connected):
        raise ValueError(
            f"`path` must be a NIR file with neurons. Received: path={str(path)!r}, a "
            "network without any."
        )
    dtype = time_axis.accumulation_dtype(keras.config.dtype_policy().compute_dtype)
    neurons = NeuronReader(reset, reset_delay, dt, data_format, dtype)
    maker = LayerMaker(
        neurons,
        data_format,
        spatial=any(entry.node.type in SPATIAL for entry in connected),
    )
    signals: dict[str, NodeOutput] = {}
    for entry in connected:
        inputs = [signals[name] for name in entry.inputs]
        signals[entry.node.name] = (
            maker.output_of(entry.node, inputs, entry.feedback)
            if inputs
            else maker.input(entry.node)
        )
    begin, end = signals[connected[0].node.name], signals[connected[-1].node.name]
    if end.has_other_order:
        raise ValueError(
            "`data_format` must be 'channels_first' for this file. Received: "
            f"data_format={data_format!r} and path={str(path)!r}, whose output is "
            f"flattened from {end.flattened}: its features would have another order."
        )
    neurons.warn()
    return SpikingModel(keras.Model(begin.tensor, end.tensor), timesteps, gradient)
