"""Files of networks of integers: an npz of `meta`, in JSON, and an array for each constant."""

import json
import os
from typing import Any

import numpy as np

from keras_ratesnn.integers._network import IntegerNetwork, make_network

_CONSTANTS = ("w/", "theta/", "bias/", "v0/", "multiplier/")
_SETTINGS = ("timesteps", "temporal_input", "input_shape", "largest_input", "channels_first")


def write(network: IntegerNetwork, path: str | os.PathLike[str]) -> None:
    """Writes a network as an npz."""
    layers = [{"name": layer.name, "kind": layer.kind, "from": layer.sources, **layer.facts} for layer in network.layers]
    meta = {**{name: getattr(network, name) for name in _SETTINGS}, "unit_of_logits": network.unit, "layers": layers}
    with open(path, "wb") as file:
        arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), **network.constants}
        np.savez_compressed(file, **arrays)


def read(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Reads a network from an npz.

    Raises:
        ValueError: If the file is no network of integers.
    """
    with np.load(path, allow_pickle=False) as file:
        if "meta" not in file:
            raise ValueError(
                "`filepath` must be a file of a network of integers, with an array 'meta'. Received: "
                f"filepath={str(path)!r} with {', '.join(file.files) or 'nothing'}. Write one with `save_integers`."
            )
        meta = json.loads(str(file["meta"]))
        constants = {key: file[key].astype("int8" if key.startswith("w/") else "int32") for key in _constants_in(file.files)}
        # Files of other programs have inputs instead of their shape.
        shape = meta["input_shape"] if "input_shape" in meta else file["x"].shape[2 if meta["temporal_input"] else 1 :]
    settings: dict[str, Any] = {name: meta[name] for name in _SETTINGS if name in meta and name != "input_shape"}
    return make_network(meta["layers"], constants, shape, unit=meta.get("unit_of_logits", 1.0), **settings)


def _constants_in(keys):
    return [key for key in keys if key.startswith(_CONSTANTS)]
