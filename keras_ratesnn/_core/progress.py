"""Progress bars of long computations, as Keras draws them."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

import keras

from keras_ratesnn._core import checks

Verbosity: TypeAlias = Literal["auto", 0, 1, 2] | bool
VERBOSITIES: tuple[Verbosity, ...] = ("auto", 0, 1, 2)

_Item = TypeVar("_Item")


def checked(verbose: Any) -> Any:
    """Returns `verbose` as 0, 1 or 2, as in `keras.Model.predict`; raises ValueError if
    it is none of these, nor "auto"."""
    if not checks.is_one_of(verbose, VERBOSITIES):
        raise ValueError(
            '`verbose` must be "auto", 0 (nothing is printed), 1 (a progress bar) or 2 '
            "(one line). Received: "
            f"verbose={verbose!r}."
        )
    return 1 if verbose == "auto" else int(verbose)


def tracked(items: Iterable[_Item], count: int, verbose: Any) -> Iterator[_Item]:
    """Yields items, and draws how many of them the caller is done with.

    Args:
        items: Iterable.
        count: Integer, the number of items.
        verbose: As in `checked`.
    """
    bar = keras.utils.Progbar(count, verbose=checked(verbose))
    for item in items:
        yield item
        bar.add(1)
