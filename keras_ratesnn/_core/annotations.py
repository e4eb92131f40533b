"""The names that signatures are written in.

Keras has no types of its own, and a tensor is what the backend in use makes of one: these names tell a reader, and to a type
checker a tensor is anything.
"""

from typing import Any, Literal, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend in use, a symbolic one of Keras, or an array that Keras takes for one."""

Structure: TypeAlias = Any
"""A tensor, or lists, tuples and dicts of tensors, nested in any way."""

Shape: TypeAlias = tuple[int | None, ...]
"""The shape of a tensor; `None` where a size is not known."""

Config: TypeAlias = dict[str, Any]
"""What `get_config` returns, or an object as Keras serialises it."""

StepMode: TypeAlias = Literal["multi", "single"]
Reset: TypeAlias = Literal["soft", "hard"]
Stem: TypeAlias = Literal["auto", "cifar", "imagenet"]
Normalizer: TypeAlias = Literal["batch", "weight", "online"]
