"""The folder of a temporal probe: results of trained twins, and the state of the one
whose training was interrupted.

budget.json     what all twins have in common
NAME-SEED.npz   the result of a twin
unfinished.npz  the variables of the latest twin after its last whole epoch
"""

import json
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from keras_ratesnn._core import checks, whole_files
from keras_ratesnn._core.annotations import Config

_BUDGET, _UNFINISHED = "budget.json", "unfinished.npz"


class TwinResult(NamedTuple):
    """The result of a trained twin.

    Args:
        right: Array `(samples,)`: 1 where a validation sample is right, or the share of
            its labels that are.
        earlier: The same before the last quarter of the epochs.
        shuffled: Float, the accuracy after the spikes are shuffled in time; NaN for a
            twin that does not see the data as they are.
    """

    right: np.ndarray
    earlier: np.ndarray
    shuffled: float


class TwinFolder:
    """The folder of the results; its files are written whole or not at all.

    Args:
        path: Path of the folder, which is made if there is none.
        budget: Dict of plain values.

    Raises:
        ValueError: If the folder has results of another budget, or a file in it is
            damaged.
        OSError: If it cannot be made or read.
    """

    def __init__(self, path: Any, budget: Config) -> None:
        self._path = pathlib.Path(checks.path("folder", path))
        self._path.mkdir(parents=True, exist_ok=True)
        file = self._path / _BUDGET
        if not file.exists():
            text = json.dumps(budget, indent=2) + "\n"
            whole_files.replace(file, lambda part: part.write_text(text))
        begun = _read(file, lambda: json.loads(file.read_text()))
        changed = [
            f"{name}={begun.get(name)!r}, now {value!r}"
            for name, value in budget.items()
            if begun.get(name) != value
        ]
        if changed:
            raise ValueError(
                "`folder` must have results of the same budget and data (those of "
                "more than a number by their checksums). Received: "
                f"folder={str(path)!r}, which was begun with {'; '.join(changed)}. "
                "Pass another folder, or delete it."
            )

    def result(self, name: str, seed: int) -> TwinResult | None:
        """The result that `keep_result` kept; `None` if the twin is not finished."""
        arrays = self._arrays(f"{name}-{seed}.npz", TwinResult._fields)
        if arrays is None:
            return None
        right, earlier, shuffled = arrays
        return TwinResult(right, earlier, float(shuffled))

    def keep_result(self, name: str, seed: int, result: TwinResult) -> None:
        """Writes the result of a twin."""
        self._write(f"{name}-{seed}.npz", **result._asdict())
        (self._path / _UNFINISHED).unlink(missing_ok=True)

    def unfinished(
        self, name: str, seed: int
    ) -> tuple[int, np.ndarray, list[np.ndarray]] | None:
        """The state of this twin that `keep_unfinished` kept; `None` if it has not
        begun."""
        arrays = self._arrays(_UNFINISHED, ("name", "seed", "epochs", "earlier"))
        if arrays is None:
            return None
        begun_name, begun_seed, epochs, earlier, *values = arrays
        if (str(begun_name), int(begun_seed)) != (name, seed):
            return None
        return int(epochs), earlier, values

    def keep_unfinished(
        self,
        name: str,
        seed: int,
        epochs: int,
        earlier: np.ndarray,
        values: list[np.ndarray],
    ) -> None:
        """Writes the values of all variables of a twin after an epoch, and what it had
        right earlier, if that is known."""
        self._write(
            _UNFINISHED, *values, name=name, seed=seed, epochs=epochs, earlier=earlier
        )

    def _arrays(self, name, first):
        """The arrays of a file, a list that begins with those of these names; `None` if
        there is no such file."""
        file = self._path / name
        if not file.exists():
            return None

        def read():
            with np.load(file, allow_pickle=False) as arrays:
                # Arrays without a name are numbered by NumPy.
                rest = [f"arr_{index}" for index in range(len(arrays) - len(first))]
                return [arrays[key] for key in (*first, *rest)]

        return _read(file, read)

    def _write(self, file_name, /, *arrays, **named):
        def write(part):
            with open(part, "wb") as file:
                np.savez(file, *arrays, **named)

        whole_files.replace(self._path / file_name, write)


def _read(file, read):
    try:
        return read()
    # A damaged archive raises BadZipFile or KeyError, a damaged text ValueError.
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f"`folder` has a damaged file, {file} ({error}). Delete it: what it holds "
            "is computed again."
        ) from error
