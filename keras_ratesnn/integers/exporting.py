"""export_c: a network of integers as one C file."""

import dataclasses
import os
import pathlib
import re

from keras_ratesnn._core import checks
from keras_ratesnn.integers._c_program import CProgram
from keras_ratesnn.integers.model import IntegerModel


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much memory a program takes, without its code and its stack.

    Args:
        constants: Integer, the bytes of weights and other constants.
        memory: Integer, the bytes of membranes and of what passes between layers.
    """

    constants: int
    memory: int


def export_c(model: IntegerModel, filepath: str | os.PathLike[str], name: str | None = None, cache_input: bool = True) -> Sizes:
    """Writes a network of integers as one C99 file, for microcontrollers and other devices.

    It needs `stdint.h` and `string.h`, no floats, no division, and no memory but its own arrays. Its results are those of the
    model to the last bit. It has three functions:

        void NAME_reset(void);
        void NAME_step(const uint8_t *input, int32_t *logits);       adds the logits of one time step
        int NAME_classify(const uint8_t *input, int32_t *logits);    all time steps of one input; returns the class

    An input has channels last. An input of 0 costs a comparison, another one a row of additions.

    Example:

    >>> import tempfile
    >>> inputs = keras.Input((8,))
    >>> x = keras_ratesnn.layers.LIF()(keras.layers.Dense(16)(inputs))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, keras.layers.Dense(3)(x)), timesteps=4)
    >>> chip = keras_ratesnn.integer(model, verbose=False)
    >>> sizes = export_c(chip, tempfile.mkdtemp() + "/net.c")

    Args:
        model: An `IntegerModel`, see `keras_ratesnn.integer`.
        filepath: String or path.
        name: String, an identifier of C with which public names begin. Defaults to `None`: the name of the file.
        cache_input: Boolean, whether the currents of an input that is the same at every step are computed once and kept, which
            takes more memory. Defaults to `True`.

    Returns:
        `Sizes`: the bytes of constants and of memory.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `name` is no identifier of C.
        OSError: If a file cannot be at `filepath`.
    """
    checks.instance("model", model, IntegerModel, advice="Make one with keras_ratesnn.integer(model).")
    path = pathlib.Path(checks.file_to_write("filepath", filepath))
    name = path.stem if name is None else name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(
            f"`name` must be an identifier of C: letters, digits and underscores. Received: name={name!r}. Pass another name."
        )
    program = CProgram(model.plan, name, checks.boolean("cache_input", cache_input))
    path.write_text(program.text)
    return Sizes(program.constant_bytes, program.static_bytes)
