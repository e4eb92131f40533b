"""Places of pretrained networks outside of the package: folders, the Hugging Face Hub
and Kaggle.

All have one layout: `card.json`, the `Card`; the weights file that it names; and a
`README.md` for people, which is not read. A place has `file(name, largest)`, the path
of one of its files; `publish(folder)`, which copies a folder there; and `path`, its own
if it is a folder, or `None`.
"""

import contextlib
import os
import pathlib
import re
import stat
from typing import Any

from keras_ratesnn._core import optional_packages
from keras_ratesnn.models.pretrained import _archive, _files
from keras_ratesnn.models.pretrained._card import read

CARD = "card.json"

_LONGEST_CARD = 2**20
_LARGEST = 2 * 2**30
_BYTES_OF_A_PARAMETER = 8
_BESIDE_PARAMETERS = 16 * 2**20
"""Bytes of a weights file for its configuration and its names."""


class Folder:
    """A local folder.

    Args:
        path: String or path.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def file(self, name, largest):
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"There is no folder {str(self.path)!r}, in which {name} should be."
            )
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise ValueError(
                f"{name} in {self.path} is a link to {path}, out of the folder, which "
                "is not followed."
            )
        return _checked(path, largest)

    def publish(self, folder):
        files = sorted(
            pathlib.Path(folder).iterdir(), key=lambda file: file.name == CARD
        )
        _files.put({self.path / file.name: file for file in files})


class HuggingFace:
    """A repository of models on the Hugging Face Hub, `hf://user/name` or
    `hf://user/name@revision`.

    Args:
        address: String.
        repository: String, `user/name`.
        version: String, a branch, tag or commit; or `None`.
    """

    PATTERN = re.compile(
        r"(?!.*\.\.)hf://(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII
    )
    path = None

    def __init__(self, address, repository, version):
        self.address, self.repository, self.version = address, repository, version
        self.hub = optional_packages.imported("huggingface_hub", address, "hubs")

    def file(self, name, largest):
        options = {
            "repo_id": self.repository,
            "filename": name,
            "revision": self.version,
            "library_name": "keras_ratesnn",
        }
        with _errors(
            f"{name} of {self.address} cannot be downloaded",
            "Try again with a network connection",
        ):
            size = self.hub.hf_hub_download(**options, dry_run=True).file_size
        _check_size(f"{name} of {self.address}", size or 0, largest)
        with _errors(
            f"{name} of {self.address} cannot be downloaded",
            "Try again with a network connection",
        ):
            path = self.hub.hf_hub_download(**options)
        return _checked(pathlib.Path(path), largest)

    def publish(self, folder):
        with _errors(
            f"{self.address} cannot be written",
            "Run `hf auth login` first, with a token that may write",
        ):
            api = self.hub.HfApi(library_name="keras_ratesnn")
            api.create_repo(self.repository, exist_ok=True)
            api.upload_folder(
                repo_id=self.repository,
                folder_path=folder,
                commit_message="Published by keras_ratesnn",
            )


class Kaggle:
    """A model on Kaggle, `kaggle://user/name/framework/variation`, or a version of it,
    with `/version` behind that.

    Args:
        address: String.
        handle: String, `user/name/framework/variation`.
        version: String of digits; or `None`.
    """

    PATTERN = re.compile(
        r"(?!.*\.\.)kaggle://(\w[\w.-]*(?:/\w[\w.-]*){3})(?:/(\d+))?", re.ASCII
    )
    path = None

    def __init__(self, address, handle, version):
        self.address, self.handle, self.version = address, handle, version
        self.hub = optional_packages.imported("kagglehub", address, "hubs")

    def file(self, name, largest):
        handle = (
            self.handle if self.version is None else f"{self.handle}/{self.version}"
        )
        advice = (
            "Try again with a network connection; without one, name a version "
            "that was downloaded before"
        )
        with _errors(f"{name} of {self.address} cannot be downloaded", advice):
            path = self.hub.model_download(handle, path=name)
        return _checked(pathlib.Path(path), largest)

    def publish(self, folder):
        with _errors(
            f"{self.address} cannot be written", "Run kagglehub.login() first"
        ):
            self.hub.model_upload(
                self.handle, str(folder), version_notes="Published by keras_ratesnn"
            )


def is_address(name):
    """Whether an argument is the address of a hub or a folder, instead of the name of a
    pretrained network."""
    if isinstance(name, os.PathLike):
        return True
    # A path of an empty string is the current folder, which it is not to mean here.
    return (
        isinstance(name, str)
        and name != ""
        and ("/" in name or "\\" in name or pathlib.Path(name).is_dir())
    )


def place(address):
    """The place that a string or a path means.

    Raises:
        ImportError: If the package of the hub is not installed.
        ValueError: If it is no address of a place.
    """
    if isinstance(address, str) and "://" in address:
        for hub in (HuggingFace, Kaggle):
            match = hub.PATTERN.fullmatch(address)
            if match:
                return hub(address, *match.groups())
        raise ValueError(
            "The address of a pretrained network must be hf://user/name, "
            "hf://user/name@revision, kaggle://user/name/framework/variation, the "
            "same with /version behind it, or the path of a folder. Received: "
            f"{address!r}."
        )
    return Folder(address)


def place_to_publish(address: str | os.PathLike[str]) -> Any:
    """The place where a network is published, for `load_pretrained`: a folder, the
    Hugging Face Hub or Kaggle.

    `publish(folder)` of what it returns copies all files of a folder there:
    `card.json`, which `Card.write` writes, the weights file that the card names, and a
    `README.md` for people (docs/howto/saving.md). In a folder they take the place of
    files with the same names once all are copied; a hub makes a new version.
    `recipes.publish --to` does all of this for a run.

    Example:

    >>> place = place_to_publish("published/digits")
    >>> place.path.name
    'digits'

    Args:
        address: `"hf://user/name"`, `"kaggle://user/name/framework/variation"`, or the
            path of a folder.

    Returns:
        An object with the method `publish(folder)`, and the attribute `path`: that of
        the folder, or `None` for a hub.

    Raises:
        ImportError: If the package of the hub is not installed.
        ValueError: If the address has another form, or names a version.
    """
    there = place(address)
    if getattr(there, "version", None) is not None:
        raise ValueError(
            "To publish, the address must not name a version: the hub makes a new "
            f"one. Received: {address!r}."
        )
    return there


def network(address):
    """The card and the trained `SpikingModel` in a folder or on a hub.

    Args:
        address: String or path.

    Returns:
        `(card, model)`.

    Raises:
        ImportError: If the package of the hub is not installed.
        OSError: If a file does not exist or cannot be downloaded.
        ValueError: If the address has another form, or a file is damaged, too large, or
            not what its card says.
    """
    there = place(address)
    advice = "Ask its author to publish it again with recipes.publish --to."
    card = read(there.file(CARD, _LONGEST_CARD), advice=advice, named_by_file=True)
    largest = min(
        _BYTES_OF_A_PARAMETER * max(card.parameters, 0) + _BESIDE_PARAMETERS, _LARGEST
    )
    path = there.file(card.file, largest)
    _files.check_hash(card, path, advice)
    _archive.check(path, card)
    return card, _archive.load(path, card)


def _checked(path, largest):
    """A path, if it is that of a file that is not too large: a pipe would never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} must be a file. It is a folder, a pipe or a device.")
    _check_size(path, path.stat().st_size, largest)
    return path


def _check_size(what, size, largest):
    if size > largest:
        raise ValueError(
            f"{what} has {size} bytes, but may have {largest}: a card {_LONGEST_CARD}; "
            f"weights {_BYTES_OF_A_PARAMETER} for each parameter on the card and "
            f"{_BESIDE_PARAMETERS} besides, and {_LARGEST} at the most."
        )


@contextlib.contextmanager
def _errors(what, advice):
    """A context in which the errors of a hub's client, which have many classes, are an
    OSError."""
    try:
        yield
    except Exception as error:
        raise OSError(
            f"{what} ({type(error).__name__}: {' '.join(str(error).split())}). "
            f"{advice}."
        ) from error
