"""Shared parts of functions that build networks: options, with types and defaults, and
the finished network."""

import functools
import inspect
import os
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ParamSpec, TypeAlias, TypedDict, TypeVar

import keras

from keras_ratesnn._core.annotations import (
    Config,
    Normalizer,
    Stem,
    StepModeName,
    TransformerEdition,
)
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models._blocks import pointwise
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

ImageShape: TypeAlias = Sequence[int | None] | None
NeuronFunction: TypeAlias = Callable[[], Neuron] | None


class Options(TypedDict, total=False):
    """Options of all networks, which `keras_ratesnn.models.ResNet18` describes. Each
    has a type and a default."""

    gradient: Annotated[str | GradientMethod | Config, "rate"]
    step_mode: Annotated[StepModeName, "multi"]
    weights: Annotated[str | os.PathLike[str] | None, None]
    name: Annotated[str | None, None]


class ConvolutionalOptions(Options, total=False):
    """Options of convolutional networks."""

    neuron: Annotated[NeuronFunction, None]
    width: Annotated[float, 1.0]
    include_top: Annotated[bool, True]


class VGGOptions(ConvolutionalOptions, total=False):
    """Options of VGG networks."""

    normalization: Annotated[Normalizer, "batch"]


class ResidualOptions(ConvolutionalOptions, total=False):
    """Options of residual networks."""

    stem: Annotated[Stem, "auto"]


class ResNetOptions(ResidualOptions, total=False):
    """Options of residual networks with a choice of normalisation."""

    normalization: Annotated[Normalizer, "batch"]


class TransformerOptions(Options, total=False):
    """Options of transformers, which `keras_ratesnn.models.Spikformer` describes."""

    neuron: Annotated[NeuronFunction, None]
    attention_neuron: Annotated[NeuronFunction, None]
    dims: Annotated[int, 384]
    blocks: Annotated[int, 4]
    heads: Annotated[int | None, None]
    mlp_ratio: Annotated[int | None, None]
    edition: Annotated[TransformerEdition | None, None]


class AttentionOptions(TypedDict, total=False):
    """Options of all kinds of attention, see `spiking_self_attention`."""

    use_bias: Annotated[bool, False]
    use_output_bias: Annotated[bool, True]
    neuron: Annotated[NeuronFunction, None]
    attention_neuron: Annotated[NeuronFunction, None]
    projection: Annotated[Callable[[Any, int, bool, str], Any], pointwise]
    name: Annotated[str | None, None]


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def with_options(
    function: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """Makes of a function with `**options`, a `TypedDict` whose entries have defaults,
    one that fills in the defaults.

    To `inspect.signature` each option is a parameter with its default.
    """
    *own, options = inspect.signature(function).parameters.values()
    parameters = [*own, *_parameters(*typing.get_args(options.annotation))]
    signature = inspect.signature(function).replace(parameters=parameters)

    @functools.wraps(function)
    def called(*args, **kwargs):
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{function.__name__} {error}. Its arguments are "
                f"{', '.join(signature.parameters)}."
            ) from None
        given.apply_defaults()
        return function(**given.arguments)  # type: ignore[call-arg]

    called.__signature__ = signature  # type: ignore[attr-defined]
    return called


def builder(
    function: Callable[_Arguments, keras.Model],
) -> Callable[_Arguments, SpikingModel]:
    """Makes of a function that returns a network of one time step one that returns its
    `SpikingModel`, with its weights.

    Args:
        function: Function of `input_shape`, `classes`, `timesteps` and `**options`,
            which are a subclass of `Options`, see `with_options`. The function is given
            all of them except for `gradient`, `step_mode`, `weights` and `name`.
    """

    @functools.wraps(function)
    def build(*, gradient, step_mode, weights, name, **chosen):
        name = function.__name__.lower() if name is None else name
        network = function(**chosen)  # type: ignore[call-arg]
        model = SpikingModel(
            network, chosen["timesteps"], gradient, step_mode, name=name
        )
        return with_weights(model, weights, function.__name__)

    made: Any = with_options(build)
    made.__signature__ = made.__signature__.replace(return_annotation=SpikingModel)
    return made


def _parameters(options):
    """The parameters of a typed dict of options, those of all networks last."""
    hints = typing.get_type_hints(options, include_extras=True)
    for option in sorted(hints, key=lambda option: option in Options.__annotations__):
        kind, (default,) = hints[option].__origin__, hints[option].__metadata__
        yield inspect.Parameter(
            option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
        )
