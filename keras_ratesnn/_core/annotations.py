"""Names of types, for signatures.

Keras has no types of its own, and the class of a tensor depends on the backend. These
names inform the reader; to a type checker, a tensor is `Any`.
"""

from typing import Any, Literal, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the current backend, a symbolic Keras tensor, or an array that Keras
accepts as one."""

Structure: TypeAlias = Any
"""A tensor, or lists, tuples and dicts of tensors, nested in any way."""

Shape: TypeAlias = tuple[int | None, ...]
"""The shape of a tensor; `None` where a size is not known."""

Sizes: TypeAlias = tuple[int, ...]
"""The shape of a tensor, or a part of it, where all sizes are known."""

Config: TypeAlias = dict[str, Any]
"""The result of `get_config`, or an object as Keras serialises it."""

ParameterValue: TypeAlias = Any
"""A number, an array of numbers, or a Keras initializer or its config."""

StepModeName: TypeAlias = Literal["multi", "single"]
Reset: TypeAlias = Literal["soft", "hard"]
Stem: TypeAlias = Literal["auto", "cifar", "imagenet"]
Normalizer: TypeAlias = Literal["batch", "weight", "online"]
TransformerEdition: TypeAlias = Literal["imagenet", "cifar", "dvs"]
