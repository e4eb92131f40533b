"""The project of a network of integers in hls4ml: its Dense layers, and a layer of neurons of our own."""

import functools
import math
import pathlib
from typing import Any

import numpy as np

from keras_ratesnn._core import optional_packages
from keras_ratesnn.integers._network import IntegerNetwork
from keras_ratesnn.integers._schema import INPUT

_HEADER = pathlib.Path(__file__).parent / "integer_neurons.h"
_CONSTANTS = ("threshold", "bias", "decay", "v0", "reset")

_CONFIG = """struct config{index} {{
    static const unsigned n = {n};
    static const unsigned timesteps = {timesteps};
    static const int levels = {levels};
    static const int decay_bits = {decay_bits};
    static const int left = {left};
    static const int right = {right};
    static const int half = {half};
    static const bool hard = {hard};
    static const bool reset_delay = {reset_delay};
    typedef ap_fixed<{bits}, {bits}, AP_TRN, AP_SAT> membrane_t;
    typedef {wide} wide_t;
    typedef {threshold} threshold_t;
    typedef {bias} bias_t;
    typedef {decay} decay_t;
    typedef {v0} v0_t;
    typedef {reset} reset_t;
}};\n"""


@functools.cache
def _extended_hls4ml() -> Any:
    """The package hls4ml, which then knows integer neurons."""
    hls4ml = optional_packages.imported("hls4ml", "export_hls4ml", "hls")
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.layers import Layer, register_layer

    class IntegerNeurons(Layer):
        def initialize(self):
            self.add_output_variable(self.get_input_variable().shape)
            for name in _CONSTANTS:
                self.add_weights_variable(name)

    class Config(LayerConfigTemplate):
        def __init__(self):
            super().__init__(IntegerNeurons)

        def format(self, node):
            types = {name: node.get_weights(name).type.name for name in _CONSTANTS}
            return _CONFIG.format(**{**self._default_config_params(node), **types})

    class Call(FunctionCallTemplate):
        def __init__(self):
            super().__init__(IntegerNeurons, include_header=[f"nnet_utils/{_HEADER.name}"])

        def format(self, node):
            constants = ", ".join(node.get_weights(name).name for name in _CONSTANTS)
            call = "nnet::integer_neurons<{input_t}, {output_t}, {config}>({input}, {output}, {constants});"
            return call.format(**self._default_function_params(node), constants=constants)

    register_layer("IntegerNeurons", IntegerNeurons)
    backend = hls4ml.backends.get_backend("Vitis")
    backend.register_template(Config)
    backend.register_template(Call)
    backend.register_source(_HEADER)
    return hls4ml


def graph_of(network: IntegerNetwork, name: str, folder: str, part: str | None, reuse_factor: int) -> Any:
    """The graph of hls4ml of a network. Its layers are called by their kind and their place in the network.

    Args:
        network: `IntegerNetwork`.
        name: String, of the project.
        folder: String, where the project is to be.
        part: String, the FPGA, or `None` for the one that hls4ml chooses.
        reuse_factor: Integer, how many products of a step a multiplier computes.

    Raises:
        ImportError: If hls4ml is not installed.
        ValueError: If hls4ml has no layer for one of the network.
    """
    layers, types = _layers_of(network)
    hls4ml = _extended_hls4ml()
    config = hls4ml.utils.config.create_config(folder, name, "Vitis", part=part)
    strategy = "Latency" if reuse_factor == 1 else "Resource"
    config["HLSConfig"] = {
        "Model": {"Precision": "ap_int<32>", "ReuseFactor": reuse_factor, "Strategy": strategy},
        "LayerName": {layer: {"Precision": of_layer} for layer, of_layer in types.items()},
    }
    return hls4ml.model.graph.ModelGraph.from_layer_list(config, layers)


def _layers_of(network):
    """The layers as hls4ml lists them, and by their names the types of their numbers."""
    before, name = INPUT, "frame"
    layers: list[dict[str, Any]] = [{"class_name": "InputLayer", "name": name, "input_shape": [math.prod(network.input_shape)]}]
    types = {name: {"result": _units(network.largest_input)}}
    for number, layer in enumerate(network.layers):
        follows = layer.sources == (before,) and "shift" not in layer.facts
        reads_others = layer.kind == "readout" and layers[-1]["class_name"] != "Dense"
        if layer.kind not in ("flatten", "readout", *_MAKERS) or not follows or reads_others:
            raise ValueError(
                "`model` must be a chain of Dense layers and neurons, all that hls4ml computes in integers. Received: layer "
                f"{layer.name!r} of kind {layer.kind!r} after {', '.join(map(repr, layer.sources))}. Use "
                "keras_ratesnn.export_c, or train a network of Dense layers."
            )
        before = layer.name
        if layer.kind == "readout":
            _add_readout(network, layer, layers[-1], types[name])
        elif layer.kind in _MAKERS:
            facts, of_layer = _MAKERS[layer.kind](network, layer)
            layers.append({"name": f"{layer.kind}_{number}", "inputs": [name], **facts})
            name = layers[-1]["name"]
            types[name] = of_layer
    return layers, types


def _dense(network, layer):
    kernel = network.constants[f"w/{layer.name}"]
    inputs, outputs = kernel.shape
    facts = {"class_name": "Dense", "n_in": inputs, "n_out": outputs, "weight_data": kernel, "bias_data": np.zeros(outputs)}
    sums = _signed(layer.least, layer.largest)
    return facts, {"weight": _signed_of(kernel), "bias": "ap_int<2>", "accum": sums, "result": sums}


def _add_readout(network, layer, dense, types):
    """Lets the Dense layer before a readout do what that does: its weights keep their bits, the last of which is worth 2^f."""
    f, bias, bits = layer.facts["f"], network.constants[f"bias/{layer.name}"], _bits_of(dense["weight_data"])
    sums = _signed(layer.least, layer.largest)
    dense |= {"weight_data": dense["weight_data"].astype("int64") * 2**f, "bias_data": bias}
    types |= {"weight": f"ap_fixed<{bits},{bits + f}>", "bias": _signed_of(bias), "accum": sums, "result": sums}


def _neurons(network, layer):
    facts, source = layer.facts, network.of(layer.sources[0])
    threshold, bias, v0 = (network.constants[f"{key}/{layer.name}"] for key in ("theta", "bias", "v0"))
    values = (threshold, bias, facts["decay_m"], v0, facts["v_reset"] if facts["hard"] else 0)
    constants = {
        name: np.broadcast_to(value, layer.shape).ravel().astype("int64")
        for name, value in zip(_CONSTANTS, values, strict=True)
    }
    left, right = max(facts["f"], 0), max(-facts["f"], 0)
    half = 2 ** (right - 1) if right else 0
    # A bound of all that a membrane is before it saturates, and after its reset.
    current = max(-source.least, source.largest) * 2**left + half
    constant = max(1, facts["levels"]) * sum(int(np.abs(value).max()) for value in constants.values())
    largest = 2 ** (facts["membrane_bits"] - 1) + current + constant
    settings = {
        "class_name": "IntegerNeurons",
        "trace": True,
        "n": math.prod(layer.shape),
        "timesteps": network.timesteps,
        "levels": facts["levels"],
        "decay_bits": facts["decay_k"],
        "left": left,
        "right": right,
        "half": half,
        "hard": facts["hard"],
        "reset_delay": bool(facts.get("reset_delay")),
        "bits": facts["membrane_bits"],
        "wide": _signed(-largest, largest),
        **{f"{name}_data": value for name, value in constants.items()},
    }
    return settings, {"result": _units(layer.largest), **{name: _signed_of(value) for name, value in constants.items()}}


_MAKERS = {"dense": _dense, "neurons": _neurons}
"""What hls4ml has layers for: their facts, and the types of their numbers."""


def _units(largest):
    return f"ap_uint<{largest.bit_length()}>"


def _signed(least, largest):
    return f"ap_int<{_bits(least, largest)}>"


def _signed_of(values):
    return f"ap_int<{_bits_of(values)}>"


def _bits_of(values):
    return _bits(int(values.min()), int(values.max()))


def _bits(least, largest):
    """The bits of signed integers. A single one means -1 and 1 to hls4ml."""
    return max(2, max(-least - 1, largest).bit_length() + 1)
