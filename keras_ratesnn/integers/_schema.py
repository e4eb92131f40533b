"""The schema of networks of integers: all that their files may hold, which is checked
before anything is read or made of it."""

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_ratesnn.integers._windows import places_of

INPUT = "input"
"""The name by which layers refer to the input."""

LARGEST_SIZE = 2**28
"""The most elements of an output, and the most bytes of all constants: a small file may
ask for any amount of memory."""

_MOST_LAYERS = 10_000


class Layer(NamedTuple):
    """A layer as a file has it, checked.

    Args:
        name: String.
        kind: String.
        sources: Tuple of the names of its inputs.
        shape: Tuple, the shape of its output.
        facts: Dict.
        constants: List of the names of its arrays.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    facts: dict[str, Any]
    constants: list[str]


class _Numbers(NamedTuple):
    """Integers in a range, or Booleans, of one of several shapes, in which "channels"
    and "inputs" stand for their numbers in a layer."""

    least: int
    most: int
    shapes: tuple[tuple[int | str, ...], ...] = ((),)
    needed: bool = True

    def hold(self, value: Any, sizes: dict[Any, int]) -> bool:
        values = np.array(value, object)
        return values.shape in {
            tuple(sizes.get(axis, axis) for axis in shape) for shape in self.shapes
        } and all(
            type(number) is type(self.most) and self.least <= number <= self.most
            for number in values.ravel()
        )


_BY_CHANNEL, _BY_INPUT = ((), ("channels",)), ("inputs",)
_PAIR, _YES_OR_NO = _Numbers(1, LARGEST_SIZE, ((2,),)), _Numbers(False, True)
SETTINGS = {
    "timesteps": _Numbers(1, 2**31 - 1),
    "temporal_input": _YES_OR_NO,
    "input_shape": _Numbers(1, LARGEST_SIZE, ((1,), (3,))),
    "largest_input": _Numbers(1, 255),
    "channels_first": _YES_OR_NO,
}
_WINDOWS = {"stride": _PAIR, "pad": _Numbers(0, LARGEST_SIZE, ((2, 2),))}
_TAPS = {
    **_WINDOWS,
    "pad_value": _Numbers(0, 255, needed=False),
    "dilation": _PAIR._replace(needed=False),
    "groups": _Numbers(1, LARGEST_SIZE, needed=False),
}
_POOL = {**_WINDOWS, "size": _PAIR}
_NEURONS = {
    "f": _Numbers(-31, 30, needed=False),
    "shift": _Numbers(0, 30, ((), _BY_INPUT), needed=False),
    "decay_m": _Numbers(0, 2**30, _BY_CHANNEL),
    "decay_k": _Numbers(0, 30),
    "membrane_bits": _Numbers(2, 24),
    "levels": _Numbers(0, 2**16),
    "hard": _YES_OR_NO,
    "v_reset": _Numbers(-(2**23), 2**23 - 1, _BY_CHANNEL),
    "reset_delay": _YES_OR_NO._replace(needed=False),
}


def _pooled(source, facts):
    return (*places_of(source, facts["size"], facts), source[2])


def _unchanged(source, facts, *_):
    return source


_KINDS: dict[str, tuple[Any, ...]] = {
    "conv": (
        3,
        _TAPS,
        ("w",),
        lambda source, facts, kernel: (
            *places_of(source, kernel[:2], facts),
            kernel[3],
        ),
    ),
    "depthwise": (
        3,
        _TAPS,
        ("w",),
        lambda source, facts, kernel: (
            *places_of(source, kernel[:2], facts),
            kernel[2] * kernel[3],
        ),
    ),
    "dense": (1, {}, ("w",), lambda source, facts, kernel: kernel[1:]),
    "flatten": (None, {}, (), lambda source, facts: (math.prod(source),)),
    "add": (
        None,
        {"factors": _Numbers(1, 2**31 - 1, (_BY_INPUT,), needed=False)},
        (),
        _unchanged,
    ),
    "sum_pool": (3, _POOL, (), _pooled),
    "global_sum": (3, {}, (), lambda source, facts: source[2:]),
    "max_pool": (3, _POOL, (), _pooled),
    "neurons": (None, _NEURONS, ("theta", "bias", "v0"), _unchanged),
    "readout": (1, {"f": _Numbers(0, 30)}, ("bias",), _unchanged),
}
"""Of each kind of layer: the rank of its input, its facts, its constants, and what
gives the shape of its output."""


def plain(name: str) -> str:
    """A name of letters, digits and _ / . - alone."""
    return re.sub(r"[^A-Za-z0-9_/.-]", "_", name)


def refused(what: str) -> ValueError:
    """The error for what is no network of integers."""
    return ValueError(
        "A network of integers must be as `load_integers` describes it. Received: "
        f"{what}."
    )


def checked(
    layers: Any, constants: Mapping[str, Any], settings: dict[str, Any]
) -> list[Layer]:
    """The layers of a network of integers.

    Args:
        layers: List of dicts with `name`, `kind`, `from` and the facts of their kind.
        constants: Dict of what has a `shape` and a `dtype`.
        settings: Dict of all settings of a network.

    Raises:
        ValueError: If a type, a range, a size or a name is none of those of networks of
            integers.
    """
    for name, numbers in SETTINGS.items():
        if not numbers.hold(settings[name], {}):
            raise refused(f"{name}={reprlib.repr(settings[name])}")
    if not isinstance(layers, list) or not 1 <= len(layers) <= _MOST_LAYERS:
        raise refused(
            f"{reprlib.repr(layers)}, which is no list of 1 to {_MOST_LAYERS:,} layers"
        )
    shapes, checked_layers, held = {INPUT: tuple(settings["input_shape"])}, [], 0
    for entry in layers:
        layer = _layer(entry, shapes, constants)
        held += sum(
            math.prod(constants[name].shape) * constants[name].dtype.itemsize
            for name in layer.constants
        )
        if max(held, math.prod(layer.shape)) > LARGEST_SIZE:
            raise refused(
                f"layer {layer.name!r} with an output of shape {layer.shape}, and "
                f"{held:,} bytes of constants so far"
            )
        shapes[layer.name] = layer.shape
        checked_layers.append(layer)
    if len(layer.shape) != 1 or "readout" in (
        layer.kind for layer in checked_layers[:-1]
    ):
        raise refused(
            f"layer {layer.name!r} as the last one, whose output must be the logits"
        )
    return checked_layers


def _layer(entry, shapes, constants):
    name, kind, sources = (dict(entry).get(key, "") for key in ("name", "kind", "from"))
    known = (
        all(isinstance(text, str) for text in (name, kind, *sources))
        and kind in _KINDS
        and shapes.keys() >= set(sources)
    )
    if not known or not sources or name in ("", *shapes) or plain(name) != name:
        raise refused(
            f"layer {reprlib.repr(name)} of kind {reprlib.repr(kind)} after "
            f"{reprlib.repr(sources)}: a name must be new, of letters, digits and _ / "
            f". -, a kind one of {', '.join(_KINDS)}, and inputs must be layers "
            "before it"
        )
    (rank, schema, keys, shape_of), source = _KINDS[kind], shapes[sources[0]]
    facts = {key: entry[key] for key in schema if key in entry}
    names = [f"{key}/{name}" for key in keys]
    several = kind == "add" or "shift" in facts
    if "shift" in facts:
        names += [f"multiplier/{name}/{other_source}" for other_source in sources]
    wrong = _misfit(
        rank,
        schema,
        source,
        facts,
        names,
        constants,
        {"channels": source[-1], "inputs": len(sources)},
    )
    if (len(sources) > 1 and not several) or any(
        shapes[other_source] != source for other_source in sources
    ):
        wrong = f"after {', '.join(sources)}, which it cannot add"
    elif kind == "neurons" and ("f" in facts) == several:
        wrong = "without one of 'f' and 'shift'"
    shape = (
        ()
        if wrong
        else shape_of(source, facts, *(constants[name].shape for name in names[:1]))
    )
    if wrong or min(shape) < 1:
        raise refused(
            f"layer {name!r} of kind {kind!r} "
            f"{wrong or f'with an output of shape {shape}'}"
        )
    if isinstance(facts.get("shift"), int):
        # Older files have one for all currents.
        facts["shift"] = [facts["shift"]] * len(sources)
    return Layer(name, kind, tuple(sources), tuple(shape), facts, names)


def _misfit(rank, schema, source, facts, names, constants, sizes):
    """The fault of the input, the facts and the constants of a layer; `None` if there
    is none."""
    if len(source) != (rank or len(source)):
        return f"with an input of shape {source}"
    for key, numbers in schema.items():
        if key not in facts and numbers.needed:
            return f"without {key!r}"
        if key in facts and not numbers.hold(facts[key], sizes):
            return f"with {key}={reprlib.repr(facts[key])}"
    pad = facts.get("pad", ())
    padded = (
        math.prod(
            among + sum(around) for among, around in zip(source[:-1], pad, strict=False)
        )
        * source[-1]
    )
    if padded > LARGEST_SIZE or any(
        max(around) >= window
        for around, window in zip(pad, facts.get("size", ()), strict=False)
    ):
        return f"with pad={pad}, more than it can have"
    for name in names:
        if name not in constants:
            return f"without {name}"
        shape, is_kernel = constants[name].shape, name.startswith("w/")
        if 0 in shape or (
            (len(shape), shape[-2:-1]) != (len(source) + 1, source[-1:])
            if is_kernel
            else shape != source[-1:]
        ):
            return f"with {name} of shape {shape} for {source[-1]} channels"
    return None
