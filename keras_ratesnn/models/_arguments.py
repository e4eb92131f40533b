"""Checks of the arguments that the networks share."""

from collections.abc import Iterable
from typing import Any

import keras

from keras_ratesnn._core import checks
from keras_ratesnn.models._blocks import channel_axis, image_shape


def image_input(input_shape, default, smallest):
    """The input of an image network, in Keras' image data format.

    Args:
        input_shape: The argument of the user, the shape of one image, or `None` for the
            default.
        default: Pair of integers, the default: height and width, and number of
            channels.
        smallest: Integer, the smallest height and width, or a function of the height
            and width that returns it.

    Returns:
        A `keras.Input`.

    Raises:
        TypeError: If `input_shape` is not a tuple of integers; a height or width may be
            `None`.
        ValueError: If it has the wrong rank, or is too small.
    """
    channels_first = channel_axis() == 1
    if input_shape is None:
        input_shape = image_shape(*default)
    order = (
        "(channels, height, width)" if channels_first else "(height, width, channels)"
    )
    meaning = f"It is the shape of one image, {order}, without batch and time."
    _check_entries("input_shape", input_shape, 3, meaning)
    channels_at, *sides_at = (0, 1, 2) if channels_first else (2, 0, 1)
    for index, size in enumerate(input_shape):
        if size is not None or index == channels_at:
            checks.positive_integer(f"input_shape[{index}]", size, advice=meaning)
    sides = [input_shape[index] for index in sides_at]
    smallest = smallest(*sides) if callable(smallest) else smallest
    if any(side is not None and side < smallest for side in sides):
        raise ValueError(
            f"`input_shape` must have a height and width of at least {smallest}, "
            "because this network reduces images by that factor. Received: "
            f"input_shape={input_shape!r}. {meaning}"
        )
    return keras.Input(tuple(input_shape), name="image")


def positive_integers(name, values, count, advice):
    """An argument that is a tuple of `count` positive integers."""
    _check_entries(name, values, count, advice)
    return tuple(
        checks.positive_integer(f"{name}[{index}]", value, advice=advice)
        for index, value in enumerate(values)
    )


def _check_entries(name, values, count, advice):
    if not isinstance(values, (tuple, list)):
        raise checks.wrong_type(name, "a tuple", values, advice)
    if len(values) != count:
        number = {3: "three", 4: "four"}[count]
        raise ValueError(
            f"`{name}` must have {number} entries. Received: {name}={values!r}. "
            f"{advice}"
        )


def checked_classes(classes: Any) -> int:
    """The argument `classes`, which must be an integer of 1 or more."""
    return checks.positive_integer(
        "classes", classes, advice="It is the number of outputs of the last layer."
    )


def scaled(channels: Iterable[int], width: float) -> tuple[int, ...]:
    """Numbers of channels times the width multiplier, rounded, at least one.

    Args:
        channels: Iterable of integers.
        width: Float > 0.

    Returns:
        Tuple of integers.
    """
    width = checks.real(
        "width",
        width,
        above=0,
        advice="It multiplies the number of channels of every layer.",
    )
    return tuple(max(1, round(width * number)) for number in channels)
