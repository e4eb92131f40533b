"""Reads the weights in a file of `torch.save`, and runs no code that may be in it; and
writes such files."""

import argparse
import io
import os
import re
import stat
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_ratesnn._core import checks, optional_packages, whole_files

_PLACES = ("state_dict_ema", "state_dict", "model", "best_net", "net")
"""Where programs keep the weights; the first that is there counts. Averages come
first, because the accuracy that timm writes is theirs."""

_MOST_TIMESTEPS = _MOST_HEADS = 10_000
_SETTINGS: dict[str, tuple[tuple[str, ...], Callable[[Any], bool]]] = {
    "timesteps": (
        ("T", "time_step", "time_steps"),
        lambda value: type(value) is int and 1 <= value <= _MOST_TIMESTEPS,
    ),
    "heads": (
        ("num_heads",),
        lambda value: type(value) is int and 1 <= value <= _MOST_HEADS,
    ),
    "pooling_stat": (
        ("pooling_stat",),
        lambda value: type(value) is str and re.fullmatch("[01]{4}", value) is not None,
    ),
    "connect_f": (
        ("connect_f", "cnf"),
        lambda value: (
            type(value) is str and re.fullmatch("[A-Z]{1,9}", value) is not None
        ),
    ),
    "dvs_mode": (("dvs_mode",), lambda value: type(value) is bool),
}
"""The settings that are read, by our names for them (arguments, or keys of
`Layout.needs`): pairs of their names in programs, and a function that says whether a
value is valid."""

_LONGEST_PICKLE = 4 * 2**20
"""The most bytes of all but the numbers: names, shapes and settings. In memory they may
take seventy times as much."""

_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)
"""Names come into messages, which are one line."""

_ONE_AT_A_TIME = threading.Lock()
"""PyTorch keeps the classes that it allows for the whole process."""


class Contents(NamedTuple):
    """The contents of a file.

    Args:
        path: String.
        place: String, the key at the top level under which the weights are, or `""`.
        weights: Dict of the authors' names to arrays: floats are float32.
        prefixed: Boolean, whether all names began with `module.`, which `weights`
            leaves out.
        settings: Dict of what the settings of the program tell, see `Layout`, to
            `(name, value)`, the name in the file.
    """

    path: str
    place: str
    weights: dict[str, np.ndarray]
    prefixed: bool
    settings: dict[str, tuple[str, Any]]


def read(path):
    """The `Contents` of a file.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If there is no such file.
        ValueError: If it is no file, is damaged, holds more than weights and settings,
            or no weights.
        ImportError: If PyTorch is not installed.
    """
    path, size = checks.file("path", path)
    if os.path.isdir(path):
        raise ValueError(
            f"`path` must be a file of torch.save. Received: path={path!r}, which is a "
            "folder."
        )
    torch = optional_packages.imported("torch", "from_checkpoint", "torch")
    try:
        content = _loaded(torch, path, size)
        place, tensors = _weights(torch, content)
        if (
            sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            > size
        ):
            raise _Refused("its weights claim to be larger than the file")
        weights = {
            name: _array(torch, name, tensor) for name, tensor in tensors.items()
        }
    except _Refused as refused:
        reason = str(refused)
    # The error depends on where the file is damaged.
    except Exception as error:
        reason = _why(error)
    else:
        prefixed = all(name.startswith("module.") for name in weights)
        if prefixed:
            weights = {
                name.removeprefix("module."): array for name, array in weights.items()
            }
        return Contents(path, place, weights, prefixed, _settings(content))
    raise ValueError(
        "`path` must be a file of weights that torch.save wrote. Received: "
        f"path={path!r}, but {reason}. No code in it was run. Ask its author for a "
        "file that holds the state_dict alone."
    )


def write(path, place, weights):
    """Writes arrays by name under a key at the top level, or at the top level for `""`.

    Raises:
        OSError: If the file cannot be written.
        ImportError: If PyTorch is not installed.
    """
    torch = optional_packages.imported("torch", "to_checkpoint", "torch")
    # Copies: some arrays cannot be written to, or have strides of their own.
    tensors = {
        name: torch.from_numpy(np.array(array, order="C"))
        for name, array in weights.items()
    }
    # In memory first: PyTorch turns errors of a file, such as a full disk, into its
    # own.
    content = io.BytesIO()
    torch.save({place: tensors} if place else tensors, content)
    whole_files.replace(path, lambda part: part.write_bytes(content.getbuffer()))


class _Refused(Exception):
    """A file is not read. The message says why."""


def _loaded(torch, path, size):
    with open(path, "rb", opener=_opened) as file:
        # What was checked may have been replaced since.
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _Refused("it is no file")
        zipped = file.read(4) == b"PK\x03\x04"
        if zipped:
            _check_members(path, size)
        # Of a file that is refused, PyTorch may warn, too.
        with (
            _ONE_AT_A_TIME,
            _allowed(torch, argparse.Namespace),
            warnings.catch_warnings(action="ignore"),
        ):
            if zipped:
                # Mapped numbers take no memory, and none beyond the end of the file can
                # be asked for.
                return torch.load(
                    path, map_location="cpu", weights_only=True, mmap=True
                )
            file.seek(0)
            return torch.load(_CountedFile(file), map_location="cpu", weights_only=True)


def _opened(path, flags):
    # A pipe that took the file's place would wait for a writer.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _allowed(torch, kind):
    """A context in which PyTorch reads objects of a class, unless the user's program
    allows it anyway."""
    allowed = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([] if kind in allowed else [kind])


def _check_members(path, size):
    """PyTorch stores everything uncompressed: what is compressed may be a thousand
    times as large."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(
        member.compress_type != zipfile.ZIP_STORED
        or member.file_size != member.compress_size
        for member in members
    ):
        raise _Refused("parts of it are compressed, which torch.save does not do")
    if sum(member.file_size for member in members) > size:
        raise _Refused("its parts claim to be larger than the file")
    if any(
        member.filename.endswith(".pkl") and member.file_size > _LONGEST_PICKLE
        for member in members
    ):
        raise _Refused(f"its names and settings take more than {_LONGEST_PICKLE} bytes")


class _CountedFile:
    """A file that is not a zip archive. Its pickles are read with `read` and
    `readline`, its numbers with `readinto`."""

    def __init__(self, file):
        self.left = _LONGEST_PICKLE
        self.file = file
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto

    def read(self, count=-1):
        most = self.left + 1
        return self._counted(self.file.read(min(count, most) if count >= 0 else most))

    def readline(self):
        return self._counted(self.file.readline(self.left + 1))

    def _counted(self, content):
        self.left -= len(content)
        if self.left < 0:
            raise _Refused(
                f"its names and settings take more than {_LONGEST_PICKLE} bytes"
            )
        return content


def _weights(torch, content):
    """The key under which the weights are, and the weights."""

    def are_weights(content):
        return (
            isinstance(content, Mapping)
            and len(content) > 0
            and all(
                isinstance(name, str) and isinstance(value, torch.Tensor)
                for name, value in content.items()
            )
        )

    if are_weights(content):
        return "", content
    if isinstance(content, Mapping):
        for place in _PLACES:
            if are_weights(content.get(place)):
                return place, content[place]
    raise _Refused(
        "it has no weights, neither at the top level nor in one of "
        f"{', '.join(map(repr, _PLACES))}"
    )


def _array(torch, name, tensor):
    """A tensor as an array, a view of the file if its numbers are float32."""
    if _NAME.fullmatch(name) is None:
        raise _Refused(f"{name[:40]!a} is no name of a weight")
    if (
        tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_quantized
        or tensor.is_complex()
    ):
        raise _Refused(f"{name} is no ordinary tensor of real numbers")
    if tensor.numel() == 0:
        raise _Refused(f"{name} has no numbers")
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _settings(content):
    """The arguments that the settings give, each with its name there."""
    settings = content.get("args") if isinstance(content, Mapping) else None
    known = vars(settings) if isinstance(settings, argparse.Namespace) else {}
    told: dict[str, tuple[str, Any]] = {}
    for argument, (names, fits) in _SETTINGS.items():
        for name in names:
            if argument not in told and fits(known.get(name)):
                told[argument] = f"args.{name}", known[name]
    return told


def _why(error):
    """An error of PyTorch's in a line, without its advice to run what is in the
    file."""
    text = " ".join(str(error).split())
    match = re.search(
        r"(?:Unsupported global: GLOBAL|Trying to (?:load|instantiate)(?: unsupported "
        r"GLOBAL)?) ([\w.]+)",
        text,
    )
    if match:
        return f"it holds more than weights: {match[1]}"
    if (
        "weights_only" in text
        or "WeightsUnpickler" in text
        or type(error).__name__ == "UnpicklingError"
    ):
        return "it holds more than weights, or is damaged"
    return (
        f"it is damaged, or torch.save did not write it ({type(error).__name__}: "
        f"{text.partition('. ')[0][:200]})"
    )
