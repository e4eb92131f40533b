"""Networks with the weights that their authors publish, which are files of PyTorch
programs; and such files of our weights."""

import dataclasses
import inspect
import itertools
import os
from collections import Counter
from typing import Any

import numpy as np

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.names import listed
from keras_ratesnn.models._blocks import image_shape
from keras_ratesnn.models._weights import HEAD, TOP, inner_network
from keras_ratesnn.models.published import (
    _espikeformer,
    _file,
    _filling,
    _ms_resnet,
    _residual,
    _spikingresformer,
    _transformers,
    _writing,
)
from keras_ratesnn.models.published._layouts import (
    Reader,
    UnknownSizesError,
    channels_of,
)
from keras_ratesnn.models.published._names import Table, without_containers
from keras_ratesnn.spiking_model import SpikingModel

__all__ = ["from_checkpoint", "to_checkpoint"]

NETWORKS: dict[str, list[Reader]] = {
    "rate_backpropagation": [
        _residual.resnet,
        _residual.vgg,
        _residual.sew_by_rate,
        _residual.preact_resnet,
    ],
    "sew_resnet": [_residual.sew_resnet],
    "spikformer": [_transformers.spikformer],
    "qkformer": [_transformers.qkformer],
    "maxformer": [_transformers.maxformer],
    "espikeformer": [_espikeformer.espikeformer],
    "espikeformer_large": [_espikeformer.espikeformer_large],
    "sdt_v1": [_transformers.sdt_v1],
    "sdt_v2": [_espikeformer.sdt_v2],
    "spikingresformer": [_spikingresformer.spikingresformer],
    "ms_resnet": [_ms_resnet.ms_resnet],
    "spikingjelly_sew_resnet": [_residual.spikingjelly_sew_resnet],
    "spikingjelly_spiking_resnet": [_residual.spikingjelly_spiking_resnet],
    "spikingjelly_spiking_vgg": [_residual.spikingjelly_spiking_vgg],
}
"""The architectures, which are one network or several."""

_MOST_COMPARED = 100

HEADS = (HEAD, "distilled_classifier")
"""The layers that depend on the number of classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class CheckpointReport:
    """The contents that `from_checkpoint` read, and their use; as text, a summary.

    Args:
        path: String, the file.
        place: String, the key at the top level of the file under which the weights
            were; `""` if it is all weights.
        network: String, the architecture.
        builder: String, the function of `keras_ratesnn.models`, or of
            `keras_ratesnn.models.torchvision`.
        found: Dict of arguments that the weights told.
        assumed: Dict of arguments that they do not tell, to a text that says what was
            taken and why.
        note: String, what the authors' program does in another way, or `""`.
        prefixed: Boolean, whether `module.` was removed from all names.
        renamed: Dict of the authors' names of weights, without containers called
            `module`, to ours: all that were read.
        reshaped: Dict of the authors' names to pairs of shapes, theirs and ours.
        zeros: List of our weights that the authors' network does not have, and which
            are 0.
        unused: Dict of the authors' names of weights that were left out to the reason.
    """

    path: str
    place: str
    network: str
    builder: str
    found: dict[str, object]
    assumed: dict[str, str]
    note: str = ""
    prefixed: bool = False
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = dataclasses.field(
        default_factory=dict
    )
    zeros: list[str] = dataclasses.field(default_factory=list)
    unused: dict[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.found.items())
        lines = [
            f"{self.path}: {self.network}, a {self.builder}, from "
            f"{self.place or 'the top level'}",
            f"  in the weights: {told}",
        ]
        for name, text in self.assumed.items():
            lines.append(f"  assumed: {name}={text}")
        prefix = ", without the prefix module." if self.prefixed else ""
        lines.append(
            f"  read: {len(self.renamed)} weights, all renamed, {len(self.reshaped)} "
            f"reshaped{prefix}"
        )
        if self.zeros:
            lines.append(
                f"  set to 0: {len(self.zeros)} weights that the authors' network does "
                f"not have, {self.zeros[0]} etc."
            )
        first = {reason: name for name, reason in reversed(self.unused.items())}
        for reason, n in Counter(self.unused.values()).items():
            lines.append(f"  unused: {n}, {first[reason]} etc.: {reason}")
        if self.note:
            lines.append(f"  note: {self.note}")
        return "\n".join(lines)


def from_checkpoint(
    path: str | os.PathLike[str],
    network: str | SpikingModel | None = None,
    *,
    timesteps: int | None = None,
    verbose: bool = True,
    **options: Any,
) -> SpikingModel:
    """Loads a checkpoint of the authors of a network: a file that their PyTorch program
    wrote.

    The names of the weights tell the architecture, and their shapes its sizes. Only
    weights and settings are read, and code in the file is never run. PyTorch reads the
    file, on each backend.

    Example:

    >>> import os, tempfile, torch
    >>> places, channels = (0, 4, 7, 11, 14, 18, 22, 25), (3, 1, 2, 4, 8, 8, 8, 8, 8)
    >>> weights = {
    ...     "classifier.0.weight": torch.zeros(10, 8),
    ...     "classifier.0.bias": torch.arange(10.0),
    ... }
    >>> for place, before, after in zip(places, channels, channels[1:]):
    ...     weights[f"feature.{place}.weight"] = torch.ones(after, before, 3, 3)
    ...     for name in (
    ...         f"{place}.bias",
    ...         *(
    ...             f"{place + 1}.{n}"
    ...             for n in ("weight", "bias", "running_mean", "running_var")
    ...         ),
    ...     ):
    ...         weights[f"feature.{name}"] = torch.ones(after)
    >>> path = os.path.join(tempfile.mkdtemp(), "vgg11.pth")
    >>> torch.save({"best_net": weights, "best_acc": 0.1}, path)
    >>> model = from_checkpoint(path, timesteps=2, verbose=False)
    >>> model.name, model.predict(np.zeros((1, 32, 32, 3)), verbose=0).round().tolist()
    ('vgg11', [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]])
    >>> (
    ...     model.checkpoint_report.found["classes"],
    ...     model.checkpoint_report.renamed["feature.4.weight"],
    ... )
    (10, 'block2_conv1.kernel')

    Args:
        path: String or path of a file that `torch.save` wrote. The weights are all that
            is in it, or are under one of the keys `"state_dict_ema"` (averages, which
            count if there are also others), `"state_dict"`, `"model"`, `"best_net"` and
            `"net"`.
        network: The architecture: `"rate_backpropagation"` (ResNets, VGGs, SEW and
            PreAct ResNets of Yu et al., 2024), `"sew_resnet"` (Fang et al., 2021),
            `"spikformer"`, `"qkformer"`, `"maxformer"`, `"espikeformer"`,
            `"espikeformer_large"`, `"sdt_v1"`, `"sdt_v2"` (Spike-driven Transformers),
            `"spikingresformer"` or `"ms_resnet"`. Those of SpikingJelly itself have
            torchvision's names, which do not tell: `"spikingjelly_sew_resnet"`,
            `"spikingjelly_spiking_resnet"` or `"spikingjelly_spiking_vgg"`. Or a
            `SpikingModel` with the layers of one of `keras_ratesnn.models`, perhaps
            with preprocessing before it, whose weights are replaced. Defaults to
            `None`: the names of the weights decide.
        timesteps: Integer >= 1, which the weights do not tell. Defaults to `None`: that
            in the settings of the program, if they are in the file, else the builder's
            default.
        verbose: Boolean, whether the report is printed. Defaults to `True`.
        **options: Other arguments of the builder, such as `input_shape`, `neuron` or
            `gradient`. By default the weights decide, and what they do not tell is the
            authors'. With `classes`, if the authors have others, the classifier is a
            new one, to be trained.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled. Its `checkpoint_report` has the
        arguments that the weights told (`found`) and those that they did not
        (`assumed`), and which weights were read (`renamed`, `reshaped`), made
        (`zeros`), and left out and why (`unused`); `note` is what the authors' program
        does in another way. `print` shows a summary of it.

    Raises:
        ValueError: If the file is damaged, has more than weights and settings, or has
            weights of no network or of another one, or if an argument contradicts it.
        TypeError: If an argument has the wrong type, or the builder has no such
            argument.
        OSError: If the file does not exist.
        ImportError: If PyTorch is not installed.
    """
    checks.boolean("verbose", verbose)
    if isinstance(network, str):
        checks.one_of("network", network, NETWORKS)
    elif network is not None and not isinstance(network, SpikingModel):
        raise checks.wrong_type(
            "network", "the name of an architecture or a SpikingModel", network
        )
    if "weights" in options:
        raise TypeError(
            "`weights` are those of the file. Received: "
            f"weights={options['weights']!r}. Leave it out."
        )
    contents = _file.read(path)
    origin = f"Received: path={contents.path!r}"
    weights: dict[str, np.ndarray] = {}
    for name, array in contents.weights.items():
        if weights.setdefault(without_containers(name), array) is not array:
            raise ValueError(
                f"`path` must have each weight once. {origin}, with and without "
                f".module: {name}. Delete one of them."
            )
    architecture, layout = _recognized(weights, network, origin)
    builder = layout.builder.__name__
    for name, needed in layout.needs.items():
        where, value = contents.settings.get(name, ("", needed))
        if value != needed:
            raise ValueError(
                f"`path` must have weights of a {architecture} with {name}={needed!r}. "
                f"{origin}, with {where}={value!r}."
            )
    report = CheckpointReport(
        contents.path,
        contents.place,
        architecture,
        builder,
        {},
        {},
        layout.note,
        contents.prefixed,
    )
    if isinstance(network, SpikingModel):
        model = _without_arguments(network, timesteps, options)
        matched = _matched(model, weights, layout, report, origin, options)
        for variable, array in matched:
            # A copy: a variable must not share memory with the file.
            variable.assign(np.array(array))
    else:
        arguments = _arguments(
            layout,
            contents.settings,
            {"timesteps": timesteps, **options},
            report,
            origin,
        )
        # First without values: a few large shapes may stand for more weights than there
        # is memory. Their first values are those of the file, so that there are no
        # others in memory.
        with keras_internals.without_values() as variables:
            model = layout.builder(**arguments)
        keras_internals.give_values(
            model, variables, _matched(model, weights, layout, report, origin, options)
        )
    model.checkpoint_report = report
    if verbose:
        print(report)
    return model


def to_checkpoint(model: SpikingModel, path: str | os.PathLike[str]) -> None:
    """Writes the weights of a network as its authors' PyTorch program does, which can
    then load and run them.

    It writes what `from_checkpoint` reads: the same weights come back, bit for bit. The
    file has weights alone, no neurons, time steps or settings: run the program with
    those of the model.

    Example:

    >>> import os, tempfile, torch
    >>> model = keras_ratesnn.models.MaxFormer(
    ...     (16, 16, 3), timesteps=2, dims=32, blocks=3
    ... )
    >>> path = os.path.join(tempfile.mkdtemp(), "maxformer.pth")
    >>> to_checkpoint(model, path)
    >>> weights = torch.load(path)["state_dict"]
    >>> weights["stage2.0.mixer.conv.weight"].shape
    torch.Size([16, 1, 3, 3])
    >>> from_checkpoint(path, input_shape=(16, 16, 3), timesteps=2, verbose=False).name
    'maxformer'

    Args:
        model: A `SpikingModel` of one of the functions of `keras_ratesnn.models` whose
            networks `from_checkpoint` reads, perhaps with preprocessing before it. SEW
            ResNets with `IF` neurons have the format of Fang et al., in which
            convolutions have no biases: ours are subtracted from the means of the
            normalisation after them. Others have that of Yu et al.
        path: String or path of the new file.

    Raises:
        ValueError: If the network is none of these, in an edition that the authors'
            program has, or has other weights.
        TypeError: If an argument has the wrong type.
        OSError: If the file cannot be written.
        ImportError: If PyTorch is not installed.
    """
    checks.instance("model", model, SpikingModel)
    path = checks.file_to_write("path", path)
    try:
        place, weights = _writing.stored(inner_network(model.network), NETWORKS)
    except _filling.MismatchError as error:
        raise ValueError(
            f"`model` must be a network of one of {', '.join(NETWORKS)}. Received: "
            f"model={model.name!r}, but {error}. Build it with a function of "
            "keras_ratesnn.models, in an edition that its authors' program has."
        ) from None
    _file.write(path, place, weights)


def _matched(model, weights, layout, report, origin, options):
    """The pairs of `_filling.matched`, without layers that the user's `options` leave
    out; a mismatch is an error about the file."""
    left_out = (
        {}
        if options.get("include_top", True)
        else dict.fromkeys(TOP, "include_top=False")
    )
    trained, classes = layout.told["classes"], options.get("classes")
    if classes not in (None, trained):
        left_out |= dict.fromkeys(
            HEADS,
            f"it is for {trained} classes; what is new, for {classes}, is not trained",
        )
    try:
        return _filling.matched(
            inner_network(model.network), weights, layout, report, left_out
        )
    except _filling.MismatchError as error:
        raise ValueError(
            f"`path` must have the weights of this {report.network}, a "
            f"{report.builder}. {origin}, but {error}. Pass the arguments with which "
            "its authors trained it, or another network."
        ) from None


def _recognized(weights, network, origin):
    """The architecture of weights, and their `Layout`."""
    fitting, reasons = [], []
    for architecture, readers in NETWORKS.items():
        for reader in readers:
            try:
                layout = reader.layout(weights)
            except UnknownSizesError as error:
                reasons.append(
                    f"as {architecture} {error}, which no network of "
                    "keras_ratesnn.models has"
                )
                continue
            # The names are a network's, but not all of them are there, or a shape has
            # too few axes.
            except (KeyError, IndexError) as error:
                lacking = error if isinstance(error, KeyError) else "layers or axes"
                reasons.append(f"as {architecture} it lacks {lacking}")
                continue
            left = [] if layout is None else _filling.strangers(weights, layout)
            if left:
                reasons.append(f"as {architecture} it has no place for {listed(left)}")
            elif layout is not None:
                fitting.append((architecture, layout))
    if isinstance(network, str):
        chosen = [fit for fit in fitting if fit[0] == network]
    else:
        chosen = [fit for fit in fitting if fit[1].told_by_names]
    if len(chosen) == 1:
        return chosen[0]
    if fitting:
        fits = " or ".join(architecture for architecture, _ in fitting)
        names = ""
        if not all(layout.told_by_names for _, layout in fitting):
            names = ", by names that are torchvision's"
        raise ValueError(
            f"`network` must be {fits}, which the weights fit{names}. {origin}, "
            f"network={network!r}."
        )
    why = "; ".join(reasons)
    if not reasons:
        expected = _expected(weights, network)
        why = f"its weights have other names: {listed(list(weights))}. {expected}"
    raise ValueError(
        f"`path` must have the weights of one of {', '.join(NETWORKS)}. {origin}, but "
        f"{why}."
    )


def _expected(weights, network):
    """The names of the layers of an architecture, or of that with most names in
    common."""
    candidates = [network] if isinstance(network, str) else NETWORKS
    tables, common = {}, {}
    # A file may have very many names.
    some = list(itertools.islice(weights, _MOST_COMPARED))
    for candidate in candidates:
        tables[candidate] = NETWORKS[candidate][0].tables[0]
        table = Table(tables[candidate])
        layers = [table.find(name.rpartition(".")[0]) for name in some]
        common[candidate] = len(layers) - layers.count(None)
    nearest = max(common, key=lambda name: common[name])
    return f"The layers of {nearest} are {listed(list(tables[nearest]))}"


def _without_arguments(network, timesteps, options):
    """A model that the user passed as `network`."""
    given = list(options) if timesteps is None else ["timesteps", *options]
    if given:
        raise TypeError(
            "`network` is a model, which has its arguments already. Received also: "
            f"{', '.join(given)}. Leave them out."
        )
    return network


def _arguments(layout, settings, options, report, origin):
    """The arguments of a builder; what was told and assumed goes into the report."""
    given = {name: value for name, value in options.items() if value is not None}
    told = dict(layout.told)
    side, channels = told.pop("input_shape")
    shape = image_shape(side, channels)
    for name, value in told.items():
        # For other classes than those of the weights, the classifier is a new one.
        if name in given and name != "classes" and not _agree(given[name], value):
            raise ValueError(
                f"`{name}` must be that of the weights, {value!r}. {origin}, "
                f"{name}={given[name]!r}. Leave it out."
            )
    wanted = given.setdefault("input_shape", shape)
    if (
        isinstance(wanted, (tuple, list))
        and len(wanted) == 3
        and channels_of(wanted) != channels
    ):
        raise ValueError(
            f"`input_shape` must have {channels} channels, as the weights. {origin}, "
            f"input_shape={wanted!r}."
        )
    report.found.update(told)
    if layout.size_is_told:
        report.found["input_shape"] = shape
    else:
        report.found["channels"] = channels
    assumed = dict(layout.assumed)
    if not layout.size_is_told and options.get("input_shape") is None:
        assumed["input_shape"] = shape, f"{shape}, the authors' images"
    parameters = inspect.signature(layout.builder).parameters
    default = parameters["timesteps"].default
    assumed["timesteps"] = default, f"{default}, the authors' default"
    for name in layout.settings:
        if name in settings:
            where, value = settings[name]
            assumed[name] = value, f"{value!r}, {where} in the file"
    for name, (_, text) in assumed.items():
        if options.get(name) is None:
            report.assumed[name] = text
    for name, needed in layout.needs.items():
        if name not in settings:
            report.assumed[name] = f"{needed!r}, as no weight tells"
    defaults = {name: value for name, (value, _) in assumed.items()}
    return {**defaults, **told, **given}


def _agree(given, told):
    """Whether an argument is that of the weights; numbers of channels are rounded."""
    if isinstance(given, (int, float)) and isinstance(told, float):
        return abs(given - told) < 1e-3
    given = tuple(given) if isinstance(given, list) else given
    return given == told or (given, told) == ("auto", told)
