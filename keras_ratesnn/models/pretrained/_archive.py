"""Checks a `.keras` file of somebody else before Keras loads it: it holds a network as
large as its card says, and no code."""

import json
import math
import re
import shutil
import tempfile
import zipfile

import keras

from keras_ratesnn._core import hdf5, keras_internals
from keras_ratesnn._model.weight_checks import not_finite

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MEMBERS = _CONFIG, _METADATA, _WEIGHTS
"""The files that Keras writes of a network whose layers have none of their own."""

_LONGEST = {_CONFIG: 16 * 2**20, _METADATA: 2**16}
"""The most bytes of the members that are texts."""

_KERAS_MODULES = (
    "activations|constraints|dtype_policies|initializers|layers|models|ops|quantizers"
    "|random|regularizers|src"
)
_MOST_STEPS = 10_000
"""The most time steps, since each takes time and memory."""

_MODULES = re.compile(
    rf"keras|keras\.({_KERAS_MODULES})(\..*)?|keras_ratesnn(\..*)?|builtins"
)
"""The modules whose classes and functions a network is made of. Others only if the user
has registered them: those of `keras.utils`, for example, may read and write files."""

_FOREIGN = (
    "Lambda",
    "__lambda__",
    "TorchModuleWrapper",
    "TFSMLayer",
    "JaxLayer",
    "FlaxLayer",
)
"""Layers of Keras that run code which is stored with them, or is not Keras'."""

_READERS = ("StringLookup", "IntegerLookup", "TextVectorization")
"""Layers of Keras that may read other files."""


def check(path, card):
    """Raises ValueError unless a file is a network, described by its card, which Keras
    can load without running code.

    Args:
        path: Path of a `.keras` file.
        card: Its `Card`.
    """
    origin = f"The weights of {card.name!r} in {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            reason = (
                _wrong_members(archive)
                or _wrong_config(archive, card)
                or _wrong_weights(archive)
            )
    except zipfile.BadZipFile:
        reason = "are not a .keras file"
    except hdf5.UntrustedError as error:
        reason = f"contain {_WEIGHTS}, and {str(error).rstrip('.')}"
    # The error depends on where the file is damaged.
    except Exception as error:
        reason = (
            "cannot be read: they are damaged or were made to be "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        )
    if reason:
        raise ValueError(
            f"{origin} {reason}. They were not loaded. Ask their author for a file of "
            "SpikingModel.save."
        )


def load(path, card):
    """The `SpikingModel` of a file that was checked.

    Args:
        path: Path of a `.keras` file.
        card: Its `Card`.

    Raises:
        ValueError: If it cannot be loaded, or a weight is NaN or infinite.
    """
    try:
        with keras_internals.without_code():
            model = keras.saving.load_model(path, compile=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"The weights of {card.name!r} in {path} cannot be loaded ({reason})."
        ) from error
    broken = not_finite(model.variables)
    if broken:
        raise ValueError(
            f"The weights of {card.name!r} in {path} are NaN or infinite in "
            f"{broken[:3]}. Ask their author for others."
        )
    return model


def _wrong_members(archive):
    members = archive.infolist()
    names = sorted(member.filename for member in members)
    if names != sorted(_MEMBERS):
        strange = [name for name in names if name not in _MEMBERS]
        return (
            f"must contain {', '.join(_MEMBERS)} and nothing else, but contain "
            f"{strange[:3] or names[:9]}"
        )
    for member in members:
        # Keras compresses nothing, so that no member takes more memory than the file
        # has bytes.
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.file_size != member.compress_size
        ):
            return (
                f"contain {member.filename} in compressed form, of "
                f"{member.file_size} bytes"
            )
        if member.file_size > _LONGEST.get(member.filename, math.inf):
            return (
                f"contain {member.filename} of {member.file_size} bytes; the most "
                f"are {_LONGEST[member.filename]}"
            )
    return ""


def _wrong_config(archive, card):
    config = json.loads(archive.read(_CONFIG))
    reason = _wrong_classes(config)
    if reason:
        return reason
    # Without values: the configuration may declare more weights than there is memory.
    with keras_internals.without_code(), keras_internals.without_values():
        model = keras.saving.deserialize_keras_object(
            {**config, "compile_config": None}
        )
    if not hasattr(model, "network") or not hasattr(model, "timesteps"):
        return (
            "must be those of a SpikingModel, but are those of a "
            f"{type(model).__name__}"
        )
    declared = sum(math.prod(variable.shape) for variable in model.weights)
    if declared != card.parameters:
        return f"declare {declared} parameters, but the card says {card.parameters}"
    if model.timesteps != card.timesteps:
        return (
            f"are for {model.timesteps} time steps, but the card says {card.timesteps}"
        )
    if model.timesteps > _MOST_STEPS:
        return f"are for {model.timesteps} time steps; the most are {_MOST_STEPS}"
    return ""


def _wrong_classes(config):
    """The reason why a class in a config is refused, or an empty string.

    It walks without recursion, since the file decides how deep its lists are.
    """
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(value)
        if not isinstance(value, dict):
            continue
        left.extend(value.values())
        name, module = value.get("class_name"), value.get("module")
        if name in _FOREIGN:
            return f"contain a {name}, which would run code that is stored with it"
        if name in _READERS:
            return f"contain a {name}, which may read other files"
        known = not isinstance(module, str) or _MODULES.fullmatch(module)
        registered = keras.saving.get_registered_object(value.get("registered_name"))
        if name is not None and not known and registered is None:
            what = value.get("config") if name == "function" else name
            return (
                f"contain {module}.{what}, which is not a part of networks of Keras "
                "or keras_ratesnn, and is not registered"
            )
    return ""


def _wrong_weights(archive):
    # Keras needs it, too, and imports it as late.
    import h5py

    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        with archive.open(_WEIGHTS) as member:
            shutil.copyfileobj(member, file)
        file.flush()
        file.seek(0)
        hdf5.check_content(file)
        with h5py.File(file.name, "r") as root:
            return _wrong_arrays(h5py, root)


def _wrong_arrays(h5py, root):
    left, seen = [root], set()
    while left:
        group = left.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                return f"contain {where}, a link to another place"
            item = group[name]
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                return f"contain {where} in two places"
            seen.add(place)
            if isinstance(item, h5py.Group):
                left.append(item)
                continue
            if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiubV":
                return f"contain {where}, which is no array of numbers"
            hdf5.check_stored(item, where)
            if hdf5.filters_of(item):
                return f"contain {where}, which is compressed"
    return ""
