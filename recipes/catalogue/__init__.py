"""The recipes by name, in a file for each family, which is imported when one of its
recipes is asked for."""

import fnmatch
import importlib
import pathlib
import re

FAMILIES = {
    "digits": {
        "digits": "a compact network on the 8x8 digits that ship with scikit-learn, "
        "less than a minute",
    },
    "scenes": {
        "digits_detection": "a small YOLOv8 on scenes of the digits that ship with "
        "scikit-learn",
        "digits_segmentation": "a small U-Net on scenes of the digits that ship with "
        "scikit-learn",
    },
    "fashion_mnist": {
        "fashion_mnist": "a compact network on Fashion-MNIST, a few minutes per epoch "
        "on two CPU cores",
        "fashion_mnist_events": "VGGSNN on made event camera recordings of "
        "Fashion-MNIST",
        "fashion_mnist_maxformer": "a small Max-Former, a spiking transformer, on "
        "Fashion-MNIST",
        "fashion_mnist_resnet13": "a small residual network on Fashion-MNIST, taught "
        "by the ordinary network that it starts from",
    },
    "sequences": {
        "japanese_vowels": "two dense layers on Japanese Vowels, speech of nine "
        "speakers in sequences of unequal length",
        "order": "a layer of 16 neurons on made spikes, of which only the order tells "
        "the class, a few seconds",
        "shd": "two dense layers on Spiking Heidelberg Digits, spoken digits",
        "ssc": "three dense layers on Spiking Speech Commands, spoken words",
    },
    "paper": {
        "cifar10_dvs_vggsnn": "VGGSNN on CIFAR10-DVS, as in the paper",
        "cifar10_resnet18": "ResNet18 on CIFAR-10, as in the paper",
        "cifar10_resnet19": "ResNet19 on CIFAR-10, as in the paper",
        "cifar10_vgg11": "VGG11 on CIFAR-10, as in the paper",
        "cifar100_resnet18": "ResNet18 on CIFAR-100, as in the paper",
        "cifar100_resnet19": "ResNet19 on CIFAR-100, as in the paper",
        "cifar100_vgg11": "VGG11 on CIFAR-100, as in the paper",
        "imagenet_preact_resnet34": "PreActResNet34 on ImageNet, as in the paper",
        "imagenet_sew_resnet34": "SEWResNet34 on ImageNet, as in the paper",
    },
    "parametric_lif": {
        "dvs_gesture": "the network of PLIF on DVS128 Gesture, gestures before an "
        "event camera",
        "nmnist": "the network of PLIF on N-MNIST, handwritten digits before an event "
        "camera",
    },
    "transformers": {
        "cifar10_dvs_maxformer": "MaxFormer-2-256 on CIFAR10-DVS",
        "cifar10_dvs_qkformer": "QKFormer-2-256 on CIFAR10-DVS",
        "cifar10_dvs_spikformer": "Spikformer-2-256 on CIFAR10-DVS",
        "cifar10_maxformer": "MaxFormer-4-384 on CIFAR-10",
        "cifar10_qkformer": "QKFormer-4-384 on CIFAR-10",
        "cifar10_spikformer": "Spikformer-4-384 on CIFAR-10",
        "cifar100_maxformer": "MaxFormer-4-384 on CIFAR-100",
        "cifar100_qkformer": "QKFormer-4-384 on CIFAR-100",
        "cifar100_spikformer": "Spikformer-4-384 on CIFAR-100",
        "imagenet_maxformer": "MaxFormer-10-384 on ImageNet",
        "imagenet_qkformer": "QKFormer-10-384 on ImageNet",
        "imagenet_spikformer": "Spikformer-8-384 on ImageNet",
    },
}
"""Files of this folder, and what their recipes are: network and data set."""

FILES = {name: file for file, descriptions in FAMILIES.items() for name in descriptions}
"""The file of each recipe."""

DESCRIPTIONS = {name: FAMILIES[file][name] for name, file in FILES.items()}

PAGE = pathlib.Path(__file__).parent.with_name("README.md")
DATA = re.compile(r"^\| (`.*`) \| (.*) \| (.*) \|$", re.MULTILINE)
"""A row of the table of data in `PAGE`: patterns of recipes, their data, and
`--data-dir`."""


def listed():
    """Lines that name all recipes and say what they are."""
    width = max(map(len, FILES))
    return [f"{name:{width}}  {DESCRIPTIONS[name]}" for name in sorted(FILES)]


def data_of(name):
    """The data of a recipe, where they are from, and what `--data-dir` is."""
    rows = {
        pattern: texts
        for patterns, *texts in DATA.findall(PAGE.read_text(encoding="utf-8"))
        for pattern in re.findall("`(.*?)`", patterns)
        if fnmatch.fnmatch(name, pattern)
    }
    # `cifar10_dvs_*` says more than `cifar10_*`.
    return rows[max(rows, key=len)]


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in FILES:
        raise ValueError(
            f"There is no recipe {name!r}. The recipes are: {', '.join(sorted(FILES))}."
        )
    family = importlib.import_module(f"{__name__}.{FILES[name]}")
    return next(recipe for recipe in family.RECIPES if recipe.name == name)


def chosen(arguments, refused=(), further=()):
    """The recipe that a command line names, with the settings of its `--set`.

    Args:
        arguments: The arguments of `command_line.add_recipe`.
        refused: Dictionary from the settings that would have no effect in this command
            to what to do instead, a sentence. Defaults to none.
        further: Strings `key=value`, what the command sets itself. Defaults to none.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If there is no such recipe or setting, a setting has no effect, or
            Keras' image data format is another one.
    """
    import keras

    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Recipes take images (height, width, channels). Received: "
            "image_data_format='channels_first', a setting of Keras. Change it to "
            "channels_last in ~/.keras/keras.json."
        )
    for assignment in arguments.set:
        key = assignment.partition("=")[0]
        if key in refused:
            raise ValueError(
                f"`{key}` cannot be set here. Received: --set {assignment}. "
                f"{refused[key]}"
            )
    return find(arguments.recipe).with_settings([*arguments.set, *further])
