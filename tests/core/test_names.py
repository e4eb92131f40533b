"""One noun for one thing: the names of classes, the glossary of docs/architecture.md,
and the arguments that need no name."""

import ast
import collections
import functools
import inspect
import pathlib
import re

import keras
from library_neurons import ARGUMENTS

from keras_ratesnn import SpikingModel, layer_kinds, layers, models

ROOT = pathlib.Path(__file__).parents[2]

MOST_LINES = 600
"""A longer file has more than one concept."""

MOST_CLASSES = 4
"""Of ours, above `SpikingModel`."""

SHARED_NAMES = {
    "AccuracyOverTime": "the analysis, and the callback that runs it",
    "GradientAgreement": "the analysis, and the callback that runs it",
}
"""Names of several classes, and why. None is to be added."""


@functools.cache
def trees():
    """The syntax tree of each file of the library, by its path in it."""
    library = ROOT / "keras_ratesnn"
    return {
        path.relative_to(library): ast.parse(path.read_text())
        for path in sorted(library.rglob("*.py"))
    }


def classes():
    """The files of each class, by its name without underscores."""
    files = collections.defaultdict(list)
    for path, tree in trees().items():
        # Backends name the same thing alike.
        if path.parts[:2] == ("_core", "backend"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name.strip("_")].append(str(path))
    return files


def glossary():
    """The nouns of docs/architecture.md, and the classes that each row names."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition("## Nouns\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \*\*(\w+)\*\* \|(.*)\|$", section, re.MULTILINE)
    return {noun: set(re.findall(r"`(\w+)`", row)) for noun, row in rows}


def last_word(name):
    return re.findall(r"[A-Z][a-z]+|[A-Z]+(?![a-z])", name)[-1].lower()


def test_no_two_classes_have_one_name():
    shared = {name: files for name, files in classes().items() if len(files) > 1}
    assert shared.keys() <= SHARED_NAMES.keys(), shared


def test_a_noun_of_the_glossary_has_the_classes_that_its_row_names():
    nouns = glossary()
    assert nouns
    classes_of_nouns = collections.defaultdict(set)
    for name in classes():
        noun = last_word(name)
        if noun in nouns:
            classes_of_nouns[noun].add(name)
    for noun, named in nouns.items():
        missing = named - classes().keys()
        assert not missing, f"{noun}: there is no class {missing}"
        # Cells, handlers, windows and kinds have subclasses, which the base names.
        bases = {name for name in named if last_word(name) == noun}
        others = classes_of_nouns[noun] - named
        unexplained = {name for name in others if not _descends(name, bases)}
        assert not unexplained, f"{noun} means something else in {unexplained}"


@functools.cache
def parents():
    """The names of the bases of each class, by its name, without underscores."""
    names = collections.defaultdict(set)
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
                names[node.name.strip("_")].update(base.strip("_") for base in bases)
    return names


def _descends(name, bases):
    """Whether a class derives from one of the bases."""
    return any(
        parent in bases or _descends(parent, bases) for parent in parents()[name]
    )


def test_no_file_is_longer_than_a_reader_keeps_in_mind():
    lengths = {
        str(path): len((ROOT / "keras_ratesnn" / path).read_text().splitlines())
        for path in trees()
    }
    assert not {path: lines for path, lines in lengths.items() if lines > MOST_LINES}


def test_few_classes_stand_between_a_spiking_model_and_keras():
    ours = [
        base
        for base in SpikingModel.__mro__
        if base is not SpikingModel and base.__module__.startswith("keras_ratesnn")
    ]
    assert len(ours) <= MOST_CLASSES, ours
    assert issubclass(SpikingModel, keras.Model)


POSITIONAL = {
    "decay threshold": "LeakyReadout",
    "seed": "BernoulliEncoder",
    "max_delay sigma": "Delay",
    "args": "WSConv2D WSDense",
    "threshold": "NeuronCell",
    "cell": "Neuron",
    "momentum": "OnlineRenormalization",
    "neuron synapse": "Recurrent",
    "cell synapse": "RecurrentCell",
    "initial": "Scale",
    "timesteps": "TemporalEffectiveBatchNormalization",
    "threshold alpha": "ThresholdDependentBatchNormalization",
    "": "Encoder LatencyEncoder TimeMean TimeMixing list_pretrained",
    "shortest longest": "TimeConstants",
    "input_shape": "ESpikeFormer ESpikeFormerLarge MSResNet104 MSResNet18 MSResNet34 "
    "MaxFormer MetaSpikeFormer PreActResNet18 PreActResNet34 QKFormer ResNet18 "
    "ResNet19 ResNet34 SEWResNet101 SEWResNet152 SEWResNet18 SEWResNet34 SEWResNet50 "
    "SpikeDrivenTransformer Spikformer SpikingResformer VGG11 VGG13 VGG16 VGGSNN",
    "model layer_names": "add_branches",
    "path network": "from_checkpoint",
    "name": "load_pretrained",
    "inputs heads": "spike_driven_attention spiking_self_attention token_attention",
    "model path": "to_checkpoint",
}
"""The arguments that may be given without their names, in order, and who has them."""
OF_NEURONS = "timesteps", "levels", "order", "decay", "threshold"
"""Likewise, of all neurons: those of these that they have."""


def test_positional_arguments_of_layers_cells_and_builders_keep_their_order():
    """Programs of users pass them: `LIF(0.5, 1.0)`."""
    found = collections.defaultdict(list)
    for room in (layers, models):
        for name in sorted({*room.__all__} - {*layer_kinds.__all__}):
            arguments = inspect.signature(getattr(room, name)).parameters
            names = [
                argument.name
                for argument in arguments.values()
                if argument.kind not in (argument.KEYWORD_ONLY, argument.VAR_KEYWORD)
            ]
            if name.removesuffix("Cell") in ARGUMENTS:
                assert names == [one for one in OF_NEURONS if one in arguments], name
            else:
                found[" ".join(names)].append(name)
    assert {names: " ".join(of) for names, of in found.items()} == POSITIONAL
