"""A method of the library with several settings of compilation, side by side."""

import dataclasses

from recipes.benchmark.settings import PEERS, Settings


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        method: Name of `recipes.methods` or of a peer.
        settings: `Settings`, with the `jit_compile` of this variant.
    """

    method: str
    settings: Settings


def variants(settings, jit_compile):
    """The methods of the settings with each value of `jit_compile`, a dictionary from names to `Variant`.

    Peers occur once, because they are never compiled.

    Args:
        settings: `Settings`.
        jit_compile: Sequence of values of `Settings.jit_compile`. With a single one, a name is that of the method.
    """
    found = {}
    for method in settings.methods:
        for value in jit_compile[:1] if method in PEERS else jit_compile:
            plain = len(jit_compile) == 1 or method in PEERS
            name = method if plain else f"{method}, jit_compile={value}"
            found[name] = Variant(method, dataclasses.replace(settings, jit_compile=value))
    return found
