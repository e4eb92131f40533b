"""Where the cards and the weights of pretrained networks are."""

import hashlib
import pathlib

import keras

from keras_ratesnn.models.pretrained._card import read

FOLDER = pathlib.Path(__file__).parent
"""Holds `cards/NAME.json` and, of the networks that ship with the package, `weights/FILE`."""

CACHE = "keras_ratesnn"
"""Folder of downloads in Keras' cache."""


def names():
    """The names of all cards, sorted."""
    return sorted(path.stem for path in (FOLDER / "cards").glob("*.json"))


def card(name):
    """The `Card` of one of `names()`."""
    return read(FOLDER / "cards" / f"{name}.json")


def weights_file(card):
    """The path of the weights file of a `Card`, downloaded if it does not ship and is not in Keras' cache yet.

    Raises:
        FileNotFoundError: If it should ship and is not there.
        ValueError: If the file has another hash than the card says.
        OSError: If it cannot be downloaded.
    """
    path = FOLDER / "weights" / card.file if card.url is None else _download(card)
    if not path.is_file():
        raise FileNotFoundError(f"The weights of {card.name!r} should be in {path}, and are not. Install keras_ratesnn again.")
    found = sha256(path)
    if found != card.sha256:
        raise ValueError(
            f"The weights of {card.name!r} in {path} are not those of its card: the file is damaged, or another. Its SHA-256 "
            f"is {found}, and that of the card {card.sha256}. Install keras_ratesnn again."
        )
    return path


def sha256(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(card):
    try:
        path = keras.utils.get_file(card.file, card.url, cache_subdir=CACHE, file_hash=card.sha256, hash_algorithm="sha256")
    except ValueError as error:
        raise ValueError(
            f"The weights of {card.name!r} from {card.url} are not those of its card: the file is damaged, or another. Its "
            f"SHA-256 must be {card.sha256}. Try again, or update keras_ratesnn."
        ) from error
    # Keras raises no narrower class where there is no network.
    except Exception as error:
        raise OSError(
            f"The weights of {card.name!r} cannot be downloaded ({error}). Try again with a network, or put the file from "
            f"{card.url} into the folder {CACHE} of Keras' cache, ~/.keras unless KERAS_HOME names another, as {card.file}."
        ) from error
    return pathlib.Path(path)
