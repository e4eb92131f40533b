"""export_c: a network of integers as one C file."""

import dataclasses
import os
import pathlib
import re

from keras_ratesnn._core import checks, whole_files
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


def export_c(
    model: IntegerModel,
    filepath: str | os.PathLike[str],
    name: str | None = None,
    cache_input: bool = True,
) -> Sizes:
    """Writes a network of integers as one C99 file, for microcontrollers and other
    devices.

    It needs an `int` of 32 bits, `limits.h`, `stdint.h` and `string.h`, no floats, no
    division, and no memory but its own arrays. Its results are those of the model to
    the last bit. It has four functions:

        void NAME_reset(void);
        void NAME_step(const uint8_t *input, int32_t *logits);
                adds the logits of one time step
        int NAME_classify(const uint8_t *input, int32_t *logits);
                all time steps of one input; returns the class
        int NAME_classify_until_sure(
            const uint8_t *input, int32_t margin, int32_t *logits, int *steps);

    The last one is `IntegerModel.logits_until_sure`: it stops when the class is sure,
    and also gives the number of steps.

    An input has channels last. An input of 0 costs a comparison, another one a row of
    additions.

    Example:

    >>> import tempfile
    >>> inputs = keras.Input((8,))
    >>> x = keras_ratesnn.layers.LIF()(keras.layers.Dense(16)(inputs))
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras.layers.Dense(3)(x)), timesteps=4
    ... )
    >>> chip = keras_ratesnn.deploy.to_integers(model, verbose=False)
    >>> sizes = export_c(chip, tempfile.mkdtemp() + "/net.c")

    Args:
        model: An `IntegerModel`, see `keras_ratesnn.deploy.to_integers`.
        filepath: String or path.
        name: String, an identifier of C with which public names begin. Defaults to
            `None`: the name of the file.
        cache_input: Boolean, whether the currents of an input that is the same at every
            step are computed once and kept, which takes more memory. Defaults to
            `True`.

    Returns:
        `Sizes`: the bytes of constants and of memory.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `name` is no identifier of C.
        OSError: If the file cannot be written. One that was there before is then as it
            was.
    """
    checks.instance(
        "model",
        model,
        IntegerModel,
        advice="Make one with keras_ratesnn.deploy.to_integers(model).",
    )
    path = pathlib.Path(checks.file_to_write("filepath", filepath))
    program = CProgram(
        model.plan, _identifier(name, path), checks.boolean("cache_input", cache_input)
    )
    whole_files.replace(
        path, lambda part: part.write_text(program.text, encoding="utf-8")
    )
    return Sizes(program.constant_bytes, program.static_bytes)


def _identifier(name, path):
    """The name, or that of a path, if it can be a name in C."""
    name = path.stem if name is None else checks.instance("name", name, str)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(
            "`name` must be an identifier of C: letters, digits and underscores. "
            f"Received: name={name!r}. Pass another name."
        )
    return name
