"""The structure of a network, read from the shapes and the names of weights."""

import re
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_ratesnn.models._blocks import channel_axis

_MOST_BLOCKS = 100


class Layout(NamedTuple):
    """A network of ours for the weights in a file.

    Args:
        builder: Function of `keras_ratesnn.models`.
        told: Dict of arguments that the weights tell. `input_shape` is a pair, the
            size of the images and their channels; the size is the authors', unless the
            number of weights tells it.
        names: Dict of the authors' names of layers to ours, see `_names.Table`. Each of
            ours is there once.
        assumed: Dict of arguments that the weights do not tell to pairs of the authors'
            value and what the report says of it.
        size_is_told: Boolean, whether the weights tell the size of the images. Defaults
            to `False`.
        unused: Dict of the authors' names of layers that their network does not run to
            the reason. Defaults to none.
        without_biases: Boolean, whether the authors' convolutions have no biases where
            ours have. Defaults to `False`.
        note: String, what the user must know about the authors' program. Defaults to
            nothing.
        place: String, the key at the top level under which the program keeps the
            weights, or `""`. Defaults to `"state_dict"`.
        prefix: String with which the names in the program's files begin. Defaults to
            nothing.
        axes: Dict of parts of the authors' names to how many axes kernels of one pixel
            have there. By default they have four where ours is a convolution, and two
            where it is dense. Defaults to none.
        settings: Tuple of the arguments that the settings of the program tell, if they
            are in the file. Defaults to `("timesteps",)`.
        needs: Dict of settings of the program to the one value for which ours is its
            network. Defaults to none.
        told_by_names: Boolean, whether the names of the weights are those of this
            network alone. Defaults to `True`.
    """

    builder: Callable
    told: dict[str, Any]
    names: dict[str, str]
    assumed: dict[str, tuple[Any, str]]
    size_is_told: bool = False
    unused: Mapping[str, str] = types.MappingProxyType({})
    without_biases: bool = False
    note: str = ""
    place: str = "state_dict"
    prefix: str = ""
    axes: Mapping[str, int] = types.MappingProxyType({})
    settings: tuple[str, ...] = ("timesteps",)
    needs: Mapping[str, str | bool] = types.MappingProxyType({})
    told_by_names: bool = True


class Reader(NamedTuple):
    """A function that tells a network of its weights.

    Args:
        tables: Sequence of the tables of names that the network may have.
        weights: Tuple of the authors' names of weights by which it is known.
        layout_of: Function of weights that returns their `Layout`, or `None` if they
            are of another network nevertheless.
        not_run: Function of a network of ours that returns weights which the authors'
            program has in its files, but does not run. `None` if there are none.
    """

    tables: Sequence[dict[str, str]]
    weights: tuple[str, ...]
    layout_of: Callable[[Any], Layout | None]
    not_run: Callable[[Any], dict[str, np.ndarray]] | None

    def layout(self, weights):
        """The `Layout` of weights, or `None` if the names are not theirs."""
        if weights.keys() >= set(self.weights):
            return self.layout_of(weights)
        return None


def reads(tables, *weights, not_run=None):
    """Makes a function of weights the `layout_of` of a `Reader`."""
    return lambda layout_of: Reader(tables, weights, layout_of, not_run)


class UnknownSizesError(Exception):
    """Weights whose names fit have sizes that no network of ours has."""


def outputs(weights, name):
    """The number of channels that a layer gives."""
    return weights[f"{name}.weight"].shape[0]


def inputs(weights, name):
    """The number of channels that a layer takes."""
    return weights[f"{name}.weight"].shape[1]


def numbers(weights, pattern):
    """The numbers in names that a regular expression finds, sorted: integers, or tuples
    if it has several groups."""
    matches = [re.match(pattern, name) for name in weights]
    values = sorted({tuple(map(int, match.groups())) for match in matches if match})
    if re.compile(pattern).groups > 1:
        return values
    return [number for (number,) in values]


def depths(weights, pattern=r"layer(\d{1,9})\.(\d{1,9})\."):
    """The number of blocks of each stage."""
    stages = [stage for stage, _ in numbers(weights, pattern)]
    # The numbers are sorted.
    return tuple(Counter(stages).values())


def builder_for(builders, sizes):
    """The builder for these numbers of blocks, of a dict."""
    if sizes not in builders:
        raise UnknownSizesError(f"it has stages of {', '.join(map(str, sizes))} blocks")
    return builders[sizes]


def blocks(weights, pattern):
    """The number of blocks, of which a network is built: names of many take little
    space in a file."""
    number = len(numbers(weights, pattern))
    if number > _MOST_BLOCKS:
        raise UnknownSizesError(f"it has {number} blocks")
    return number


def channels_of(shape):
    """The channels of an image in Keras' image data format."""
    return shape[0 if channel_axis() == 1 else 2]
