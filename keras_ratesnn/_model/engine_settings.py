"""Settings that decide when calls are recorded, what compiles them, and which loops are
unrolled."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from keras_ratesnn._core import checks
from keras_ratesnn._core.backend import engine


@contextlib.contextmanager
def engine_settings(**changes: Any) -> Iterator[dict[str, Any]]:
    """A context in which models of all threads are recorded, compiled or unrolled
    otherwise: for measurements, or a device.

    The results are the same. What is recorded or compiled in the context stays so.
    There are

    * on PyTorch `eager_calls`: calls of a kind before one is recorded, by
      `jit_compile`, `{"auto": 32, True: 1}`; `calls_in_a_row`: calls of the same kind
      before a GPU captures their kernels, 8; `compiler`: the backend of
      `torch.compile`, its name or a function, `"inductor"`;
    * on PyTorch for CPUs, and on TensorFlow without XLA, `least_elements`: the number
      of elements in all tensors of the time loop of a neuron layer from which the loop
      is compiled in the first call, 1048576;
    * in what is compiled on JAX, and on TensorFlow by XLA, `unrolled_steps`: the
      largest T for which the time loop of a neuron layer is unrolled, by device and by
      whether the loop has a gradient, `{"cpu": {False: 1, True: 4}, "gpu": {False: 16,
      True: 16}}`;
    * on JAX `platform`: what is compiled for, `"cpu"` or another; `"auto"` is this
      machine.

    Example:

    >>> with keras_ratesnn.engine_settings() as settings:
    ...     print(len(settings) > 0)
    True

    Args:
        **changes: Settings of this backend, by name.

    Yields:
        Dict of all settings of this backend, as they are in the context.

    Raises:
        TypeError: If a setting has the wrong type.
        ValueError: If this backend has no such setting, or it is out of bounds.
    """
    before = {
        name: getattr(module, attribute) for name, module, attribute in engine.SETTINGS
    }
    for name in changes:
        checks.one_of("changes", name, before)
    now = before | {
        name: _checked(name, value, before[name]) for name, value in changes.items()
    }
    try:
        _set(now)
        yield copy.deepcopy(now)
    finally:
        _set(before)


def _checked(name, value, before):
    if isinstance(before, dict):
        if not isinstance(value, dict) or value.keys() != before.keys():
            raise TypeError(
                f"`{name}` must be a dict with the keys {list(before)}. Received: "
                f"{name}={value!r}."
            )
        return {
            key: _checked(f"{name}[{key!r}]", value[key], part)
            for key, part in before.items()
        }
    if isinstance(before, int):
        checks.real(name, value, at_least=0)
        return checks.integer(name, value)
    return value if callable(value) else checks.instance(name, value, str)


def _set(settings):
    for name, module, attribute in engine.SETTINGS:
        setattr(module, attribute, settings[name])
