"""C code as lines: types, loops and indentation."""

import numpy as np

from keras_ratesnn.integers._network import IntegerLayer

_UNSIGNED = {"uint8_t": 2**8, "uint16_t": 2**16}
SIGNED = {"int8_t": 2**7, "int16_t": 2**15, "int32_t": 2**31, "int64_t": 2**63}
INDICES = {"index8": "uint8_t", "index16": "uint16_t", "index32": "int32_t"}
SIZES = {
    "uint8_t": 1,
    "int8_t": 1,
    "uint16_t": 2,
    "int16_t": 2,
    "int32_t": 4,
    "int64_t": 8,
}


def type_of(least: int, largest: int, at_least: int = 1) -> str:
    """The smallest C type of a range, of at least so many bytes if it is signed."""
    if least >= 0:
        for name, end in _UNSIGNED.items():
            if largest < end:
                return name
    return next(
        name
        for name, end in SIGNED.items()
        if SIZES[name] >= at_least and -end <= least and largest < end
    )


def size_of(layer: IntegerLayer) -> int:
    return int(np.prod(layer.shape))


def loop(variable, count, body, step=None):
    advance = f"{variable} += {step}" if step and step > 1 else f"{variable}++"
    return [
        f"for ({variable} = 0; {variable} < {count}; {advance}) {{",
        *inside_of(body),
        "}",
    ]


def inside_of(lines):
    return [f"    {line}" for line in lines]


def indented(lines):
    return "\n".join(inside_of(lines))
