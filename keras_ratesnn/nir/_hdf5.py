"""Reads NIR files, which are HDF5, without trust in what they contain.

A file of a few bytes can declare arrays of terabytes, refer to other files, or contain
itself. So nothing is read before it is checked: what is read in full takes at most
`_RATIO` times as many bytes of memory as the file has, and `_ALWAYS`. Parameters of
neurons, which compress well because they are mostly the same for all neurons, are read
in pieces, and kept as one number if they are the same.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn._core import checks, hdf5, optional_packages
from keras_ratesnn._core.hdf5 import UntrustedError

_RATIO = 16
_ALWAYS = 2**24
_LONGEST_STRING = 4096
_LONGEST_LIST = 64
_DEEPEST = 32

_ARRAY, _SPREAD, _NUMBERS, _TEXT_OR_NUMBERS = (
    "array",
    "spread",
    "numbers",
    "text or numbers",
)
_SHAPE = {"shape": _NUMBERS}
_WEIGHTS = dict.fromkeys(("weight", "bias"), _ARRAY)
_CONVOLUTION = {
    **_WEIGHTS,
    **dict.fromkeys(("stride", "dilation", "groups"), _NUMBERS),
    "padding": _TEXT_OR_NUMBERS,
}
_POOLING = dict.fromkeys(("kernel_size", "stride", "padding"), _NUMBERS)
_KEYS = {
    **dict.fromkeys(("Input", "Output"), _SHAPE),
    "Affine": _WEIGHTS,
    "Linear": {"weight": _ARRAY},
    **dict.fromkeys(("Conv1d", "Conv2d"), _CONVOLUTION),
    **dict.fromkeys(("AvgPool2d", "SumPool2d"), _POOLING),
    "Flatten": {"start_dim": _NUMBERS, "end_dim": _NUMBERS},
    "Scale": {"scale": _SPREAD},
    "IF": dict.fromkeys(("r", "v_threshold", "v_reset"), _SPREAD),
    "LIF": dict.fromkeys(("tau", "r", "v_leak", "v_threshold", "v_reset"), _SPREAD),
    "I": {"r": _SPREAD},
    "LI": dict.fromkeys(("tau", "r", "v_leak"), _SPREAD),
    "CubaLI": dict.fromkeys(("tau_syn", "tau_mem", "r", "v_leak", "w_in"), _SPREAD),
    "CubaLIF": dict.fromkeys(
        ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"), _SPREAD
    ),
}
"""The fields that are read of each type of node."""

_OPTIONAL = {"v_reset": 0.0, "w_in": 1.0}
"""Fields that older files may lack."""

_METADATA = {
    **dict.fromkeys(("layer", "reset", "surrogate", "padding", "value"), str),
    **dict.fromkeys(
        ("dt", "decay_input", "detach_reset", "per_channel", "reset_delay", "use_bias"),
        float,
    ),
    **dict.fromkeys(("learn_threshold", "learn_decay", "learn_synaptic_decay"), float),
    "kernel_size": tuple,
}
"""The metadata that `export_nir` writes; other metadata is not read."""


@dataclasses.dataclass(frozen=True)
class NirParameter:
    """A parameter of neurons.

    Args:
        shape: Tuple, its shape.
        values: Array of this shape, or of shape `()` if all values are the same.
    """

    shape: tuple[int, ...]
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class NirNode:
    """A node of a file.

    Args:
        name: String, with the names of the graphs it is in, `"graph.node"`.
        type: String, the type of the node.
        values: Dict of its parameters: arrays, `NirParameter`s, tuples of integers, or
            strings.
        metadata: Dict of strings and numbers.
    """

    name: str
    type: str
    values: dict[str, Any]
    metadata: dict[str, Any]

    def refused(self, reason):
        """The error for a node that this library cannot run."""
        return ValueError(
            "`path` must be a NIR file of a network that keras_ratesnn can run. "
            f"Received: node {self.name!r} of type {self.type}: {reason}"
        )


@dataclasses.dataclass(frozen=True)
class NirGraph:
    """The graph of a file, or a graph within it.

    Args:
        nodes: Dict of names to `NirNode` or `NirGraph`.
        edges: List of pairs of names.
    """

    nodes: dict[str, Any]
    edges: list[tuple[str, str]]


def read(path):
    """The `NirGraph` of a file.

    Args:
        path: String or path.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If there is no file, or it cannot be opened.
        ValueError: If it is not a NIR file, is damaged, or declares more than it
            contains.
    """
    h5py = optional_packages.imported("h5py", "import_nir", "nir")
    path, size = checks.file("path", path)
    received = f"`path` must be a NIR file. Received: path={path!r}"
    with open(path, "rb") as content:
        try:
            hdf5.check_content(content)
            with h5py.File(path, "r") as file:
                return _NirReader(h5py, size).root(file)
        except UntrustedError as error:
            raise UntrustedError(f"{received}: {error}") from error
        except hdf5.DAMAGES as error:
            raise ValueError(
                f"{received}, which is damaged or another file ({error})."
            ) from error


class _NirReader:
    """Reads a file.

    Args:
        h5py: The package.
        size: Integer, the bytes of the file.
    """

    def __init__(self, h5py, size):
        self.h5py = h5py
        self.most = _RATIO * size + _ALWAYS
        self.left = self.most
        self.seen = set()

    def root(self, file):
        graph = self._group(file, "node", "")
        if self._text(graph, "type", "node") != "NIRGraph":
            raise UntrustedError("it has a single node instead of a graph.")
        return self._graph(graph, "", 0)

    def _graph(self, graph, path, depth):
        nodes = {}
        group = self._group(graph, "nodes", path)
        for name in group:
            where = f"{path}.{name}" if path else name
            node = self._group(group, name, path)
            kind = self._text(node, "type", where)
            if kind == "NIRGraph":
                if depth == _DEEPEST:
                    raise UntrustedError(
                        f"graphs are nested more than {_DEEPEST} deep."
                    )
                nodes[name] = self._graph(node, where, depth + 1)
            else:
                nodes[name] = self._node(node, kind, where)
        return NirGraph(nodes, self._edges(graph, path, nodes))

    def _node(self, group, kind, where):
        if kind not in _KEYS:
            known = ", ".join(_KEYS)
            raise UntrustedError(
                f"node {where!r} is of type {kind}, which keras_ratesnn cannot run. It "
                f"can run {known}."
            )
        values = {}
        for key, form in _KEYS[kind].items():
            if key in _OPTIONAL and key not in group:
                values[key] = NirParameter((), np.array(_OPTIONAL[key]))
            else:
                values[key] = self._value(
                    self._dataset(group, key, where), form, f"{key} of node {where!r}"
                )
        return NirNode(where, kind, values, self._metadata(group, where))

    def _metadata(self, node, where):
        if "metadata" not in node:
            return {}
        group, metadata = self._group(node, "metadata", where), {}
        for key, kind in _METADATA.items():
            if key in group and kind is str:
                metadata[key] = self._text(group, key, where)
            elif key in group:
                numbers = self._numbers(
                    self._dataset(group, key, where),
                    f"{key} of node {where!r}",
                    whole=kind is tuple,
                )
                metadata[key] = numbers if kind is tuple else numbers[0]
        return metadata

    def _value(self, dataset, form, what):
        if form == _TEXT_OR_NUMBERS and self.h5py.check_string_dtype(dataset.dtype):
            return self._text_in(dataset, what)
        if form in (_NUMBERS, _TEXT_OR_NUMBERS):
            return self._numbers(dataset, what)
        if dataset.dtype.kind not in "fiu":
            raise UntrustedError(f"{what} has the dtype {dataset.dtype}, not numbers.")
        return (
            self._array(dataset, what)
            if form == _ARRAY
            else self._parameter(dataset, what)
        )

    def _array(self, dataset, what):
        self._take(dataset.nbytes, f"{what}, of shape {dataset.shape}")
        return _finite(dataset[()], what)

    def _parameter(self, dataset, what):
        """A `NirParameter`, with one number if it is the same everywhere."""
        if dataset.chunks is None or dataset.size == 0:
            values = self._array(dataset, what)
            same = values.size > 0 and values.min() == values.max()
            return NirParameter(
                dataset.shape, values.flat[0].reshape(()) if same else values
            )
        first = None
        for piece in dataset.iter_chunks():
            values = _finite(dataset[piece], what)
            first = values.flat[0] if first is None else first
            if values.min() != first or values.max() != first:
                return NirParameter(dataset.shape, self._array(dataset, what))
        return NirParameter(dataset.shape, np.array(first))

    def _numbers(self, dataset, what, whole=True):
        """A tuple of numbers, one or a few, such as strides."""
        if (
            dataset.dtype.kind not in "fiub"
            or len(dataset.shape) > 1
            or not 1 <= dataset.size <= _LONGEST_LIST
        ):
            raise UntrustedError(
                f"{what} has the shape {dataset.shape} and the dtype {dataset.dtype}."
            )
        values = _finite(np.atleast_1d(dataset[()]).astype("float64"), what)
        if whole and (
            np.any(values != np.floor(values)) or np.abs(values).max() > 2**31
        ):
            raise UntrustedError(
                f"{what} is {values.tolist()}, which must be whole numbers."
            )
        return tuple(values.astype("int64" if whole else "float64").tolist())

    def _text(self, group, key, where):
        return self._text_in(self._dataset(group, key, where), f"{key} of {where!r}")

    def _text_in(self, dataset, what):
        if dataset.shape != () or not self.h5py.check_string_dtype(dataset.dtype):
            raise UntrustedError(f"{what} is not a text.")
        return _decoded(dataset[()], what)

    def _edges(self, graph, path, nodes):
        """The edges, read one by one: a text to which many of them refer is stored
        once, and would be in memory many times."""
        dataset = self._dataset(graph, "edges", path or "node")
        if (
            dataset.ndim != 2
            or dataset.shape[1] != 2
            or not self.h5py.check_string_dtype(dataset.dtype)
        ):
            raise UntrustedError(
                f"the edges must be pairs of names. They have shape {dataset.shape}, "
                f"dtype {dataset.dtype}."
            )
        self._take(dataset.nbytes, "the list of edges")
        edges: dict[tuple[str, str], None] = {}
        for row in range(dataset.shape[0]):
            ends = tuple(_decoded(name, "the name of a node") for name in dataset[row])
            if ends in edges:
                raise UntrustedError(f"the edge {ends} is there twice.")
            for name in ends:
                if name not in nodes:
                    raise UntrustedError(
                        f"the edge {ends} names {name!r}, which is not a node."
                    )
            edges[ends] = None
        return list(edges)

    def _group(self, parent, name, path):
        group = self._object(parent, name, path)
        if not isinstance(group, self.h5py.Group):
            raise UntrustedError(f"{name!r} is not a group of nodes or values.")
        return group

    def _dataset(self, parent, name, path):
        """A dataset that is stored in this file, as large as it declares."""
        dataset = self._object(parent, name, path)
        what = f"{name} of {path!r}"
        if not isinstance(dataset, self.h5py.Dataset) or dataset.shape is None:
            raise UntrustedError(f"{what} is not an array.")
        hdf5.check_stored(dataset, what)
        if (
            dataset.chunks is not None
            and np.prod(dataset.chunks, dtype="float64") * dataset.dtype.itemsize
            > self.most
        ):
            raise UntrustedError(
                f"{what} is stored in pieces of shape {dataset.chunks}, larger than "
                "the file explains."
            )
        return dataset

    def _object(self, parent, name, path):
        where = f" of {path!r}" if path else ""
        link = parent.get(name, getlink=True)
        if link is None:
            raise UntrustedError(f"{name!r}{where} is missing.")
        if not isinstance(link, self.h5py.HardLink):
            raise UntrustedError(
                f"{name!r}{where} is a link to another place, which is not followed."
            )
        stored = parent[name]
        address = self.h5py.h5o.get_info(stored.id).addr
        if address in self.seen:
            raise UntrustedError(f"{name!r}{where} is in the file in two places.")
        self.seen.add(address)
        return stored

    def _take(self, size, what):
        if size > self.left:
            raise UntrustedError(
                f"{what}, would take {size} bytes of memory, more than the size of the "
                "file explains."
            )
        self.left -= size


def _decoded(value, what):
    value = bytes(value)
    if len(value) > _LONGEST_STRING:
        raise UntrustedError(f"{what} is a text of {len(value)} bytes.")
    return value.decode("utf8")


def _finite(values, what):
    if not np.all(np.isfinite(values)):
        raise UntrustedError(f"{what} has values that are NaN or infinite.")
    return values
