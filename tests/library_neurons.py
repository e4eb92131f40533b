"""The neurons of the library, each once. Of this table follow the layers and cells in
the contract, in drawn networks, in NIR, in integers and in compiled loops, and the
tests of configs, parameters and conformance."""

import inspect

import keras_ratesnn as rsnn
from keras_ratesnn.layer_kinds import seeds_of

ARGUMENTS = {
    "ALIF": {"threshold": 0.4, "learn_threshold": True},
    "CuBaLIF": {"threshold": 0.4, "reset": "hard"},
    "IF": {"threshold": 0.6, "initial_membrane": 0.3},
    "ILIF": {"levels": 3, "threshold": 0.5, "normalize": True},
    "LIF": {"decay": 0.5, "threshold": 0.4, "detach_reset": False},
    "MaskedPSN": {"order": 2, "threshold": 0.3},
    "PSN": {"threshold": 0.3},
    "ParametricLIF": {
        "decay": 0.5,
        "threshold": 0.4,
        "per_channel": True,
        "learn_threshold": True,
    },
    "SlidingPSN": {"order": 2, "threshold": 0.3},
}
"""With these the neurons spike in small networks. The numbers of the contract are those
of these arguments."""


def layer_class(name):
    return getattr(rsnn.layers, name)


def cell_class(name):
    return getattr(rsnn.layers, f"{name}Cell")


def names_of_arguments(name):
    return inspect.signature(layer_class(name)).parameters


def taken(name, arguments):
    """Those arguments that the neurons have."""
    return {key: arguments[key] for key in arguments if key in names_of_arguments(name)}


def arguments_of(name, timesteps):
    return taken(name, {"timesteps": timesteps, **ARGUMENTS[name]})


def layer(kind, timesteps, /, **kwargs):
    return layer_class(kind)(**{**arguments_of(kind, timesteps), **kwargs})


def learned(name):
    """Arguments with which they learn all that they can."""
    return {key: True for key in names_of_arguments(name) if key.startswith("learn_")}


STEPPING = [name for name in ARGUMENTS if not cell_class(name).in_parallel]
"""Those that are not parallel."""

COMPILED = [name for name in STEPPING if not seeds_of(layer(name, None).cell)]
"""Those of them whose loops are compiled: they draw no random numbers."""
