"""Functions of Keras that are replaced while calls of ours run, and are Keras' own
before and after."""

import functools
import threading
from collections.abc import Callable
from typing import Any


class Replacements:
    """A context, shared by all threads, in which functions of Keras are replaced by
    others with the same results.

    Args:
        find: Function without arguments that returns a list of `(owner, name, value)`:
            modules or classes, and what their attributes are in the context. It is
            called once, when the context is first entered.
    """

    def __init__(self, find: Callable[[], list[tuple[Any, str, Any]]]) -> None:
        self._find = functools.cache(find)
        self._lock = threading.Lock()
        self._entered = 0
        self._originals: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._entered += 1
            if self._entered == 1:
                self._originals = [
                    (owner, name, vars(owner)[name]) for owner, name, _ in self._find()
                ]
                _set(self._find())

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                _set(self._originals)


def _set(attributes):
    for owner, name, value in attributes:
        setattr(owner, name, value)
