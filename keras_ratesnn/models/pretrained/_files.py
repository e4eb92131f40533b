"""Locations of the cards and weights of pretrained networks."""

import hashlib
import importlib.resources
import os
import pathlib
import shutil

import keras

from keras_ratesnn.models.pretrained._card import read

CACHE = "keras_ratesnn"
"""Download folder in Keras' cache."""

_UNFINISHED = ".unfinished-"
"""Before the name of a file that is being written; no network has a name that begins
like this."""


def folder():
    """The path of the folder that contains `cards/NAME.json` and, for networks that
    ship with the package, `weights/FILE`."""
    return importlib.resources.files("keras_ratesnn.models.pretrained")


def names():
    """The names of all cards, sorted."""
    return sorted(
        path.stem
        for path in (folder() / "cards").glob("*.json")
        if not path.name.startswith(_UNFINISHED)
    )


def card(name):
    """The `Card` of one of `names()`."""
    return read(folder() / "cards" / f"{name}.json")


def weights_file(card):
    """The path of the weights file of a `Card`. Downloads the file if necessary.

    Raises:
        FileNotFoundError: If a file that ships with the package is missing.
        ValueError: If the hash of the file differs from that on the card.
        OSError: If the file cannot be downloaded.
    """
    path = folder() / "weights" / card.file if card.url is None else _download(card)
    if not path.is_file():
        raise FileNotFoundError(
            f"The weights of {card.name!r} should be in {path}, but are missing. "
            "Reinstall keras_ratesnn."
        )
    check_hash(card, path, "Reinstall keras_ratesnn.")
    return path


def check_hash(card, path, advice):
    """Raises ValueError if the weights file of a `Card` has another hash than the card
    says.

    Args:
        card: The `Card`.
        path: Path of the file.
        advice: String, what to do.
    """
    digest = sha256(path)
    if digest != card.sha256:
        raise ValueError(
            f"The weights of {card.name!r} in {path} do not match its card: the file "
            f"is damaged or a different one. Its SHA-256 is {digest}, that on the card "
            f"is {card.sha256}. {advice}"
        )


def sha256(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put(files):
    """Copies files to places where others may be, which stay until all copies are
    complete, whatever interrupts.

    Args:
        files: Dict of the path of each place to that of a file, in the order in which
            they take their places: the card comes last, because without it there is no
            network.

    Raises:
        OSError: If a place cannot be written; the message names it.
    """
    parts = {place: place.with_name(_UNFINISHED + place.name) for place in files}
    try:
        for place, part in parts.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[place], part)
        for place, part in parts.items():
            os.replace(part, place)
    except OSError as error:
        raise OSError(
            f"{place} cannot be written ({error}). Free some space, or publish "
            "elsewhere."
        ) from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _download(card):
    try:
        path = keras.utils.get_file(
            card.file,
            card.url,
            cache_subdir=CACHE,
            file_hash=card.sha256,
            hash_algorithm="sha256",
        )
    except ValueError as error:
        raise ValueError(
            f"The weights of {card.name!r} from {card.url} do not match its card: the "
            f"file is damaged or a different one. Its SHA-256 must be {card.sha256}. "
            "Try again, or update keras_ratesnn."
        ) from error
    # Keras raises no narrower class if there is no network.
    except Exception as error:
        raise OSError(
            f"The weights of {card.name!r} cannot be downloaded ({error}). Try again "
            f"with a network connection, or save {card.url} as {card.file} in the "
            f"folder {CACHE} of Keras' cache (KERAS_HOME, by default ~/.keras)."
        ) from error
    return pathlib.Path(path)
