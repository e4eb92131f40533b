"""Files of networks of integers: npz, with JSON and arrays."""

import io
import json
import math
import zipfile
from typing import Any

import numpy as np

from keras_ratesnn._core import whole_files
from keras_ratesnn.integers import _schema
from keras_ratesnn.integers._network import IntegerNetwork, make_network

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MOST_TEXT, _MOST_HEADER = 2**26, 2**14
"""The most bytes of the JSON in memory, and of the header of an array."""


def write(network: IntegerNetwork, path: str) -> None:
    """Writes a network as an npz."""
    layers = [
        {"name": layer.name, "kind": layer.kind, "from": layer.sources, **layer.facts}
        for layer in network.layers
    ]
    meta = {
        **{name: getattr(network, name) for name in _schema.SETTINGS},
        "unit_of_logits": network.unit,
        "layers": layers,
    }

    arrays: dict[str, Any] = {"meta": np.array(json.dumps(meta)), **network.constants}

    def write_arrays(part):
        # To a path without a suffix NumPy adds one.
        with open(part, "wb") as file:
            np.savez_compressed(file, **arrays)

    whole_files.replace(path, write_arrays)


def read(path: str) -> IntegerNetwork:
    """Reads a network from an npz.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is no network of integers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _network(archive)
    except OSError:
        raise
    # A file may be damaged in any way.
    except Exception as error:
        raise ValueError(
            "`filepath` must be a file of a network of integers, as `save_integers` "
            f"writes it. Received: filepath={path!r}. {error}"
        ) from error


def _network(archive):
    arrays = {
        member.removesuffix(".npy"): _StoredArray(archive, member)
        for member in archive.namelist()
    }
    text = arrays.get("meta")
    if text is None or text.shape or text.dtype.itemsize > _MOST_TEXT:
        raise _schema.refused("no array 'meta' of JSON")
    meta = json.loads(str(np.asarray(text)))
    settings: dict[str, Any] = {"timesteps": None, "temporal_input": None}
    settings |= {name: meta[name] for name in _schema.SETTINGS if name in meta}
    # Files of other programs have inputs instead of their shape.
    settings.setdefault(
        "input_shape",
        arrays["x"].shape[2 if settings["temporal_input"] else 1 :]
        if "x" in arrays
        else None,
    )
    unit = meta.get("unit_of_logits", 1.0)
    is_number = isinstance(unit, (int, float)) and not isinstance(unit, bool)
    if not (is_number and 0 < unit < math.inf):
        raise _schema.refused(f"unit_of_logits={unit!r}, which is no number above 0")
    return make_network(
        meta.get("layers"),
        arrays,
        unit=float(unit),
        **settings,
    )


class _StoredArray:
    """An array of a file that NumPy reads when it needs it."""

    def __init__(self, archive: zipfile.ZipFile, member: str) -> None:
        self._archive, self._member = archive, member
        with archive.open(member) as file:
            header = io.BytesIO(file.read(_MOST_HEADER))
        read_header = _HEADERS[np.lib.format.read_magic(header)]
        self.shape, _, self.dtype = read_header(header)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        with self._archive.open(self._member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
