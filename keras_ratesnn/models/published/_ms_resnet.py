"""MS ResNet, whose normalisation is over time."""

from keras_ratesnn.models.ms_resnet import MSResNet18, MSResNet34, MSResNet104
from keras_ratesnn.models.published._layouts import (
    Layout,
    builder_for,
    depths,
    inputs,
    outputs,
    reads,
)

_WIDEST = 512
"""The channels of the last stage for `width=1`."""

_SIDE = 224
_NEURON = {
    "neuron": (
        None,
        "LIF(decay=0.25, threshold=θ, reset='hard', surrogate='rectangular'), θ the "
        "next number above 0.5",
    )
}

_STAGES = {
    f"conv{stage + 1}_x.{{b}}": f"stage{stage}_block{{b+1}}" for stage in (1, 2, 3, 4)
}
"""The authors count the stem as the first stage."""


def _names(stem, shortcut):
    """The names of layers, given those of the stem, and the place of the convolution in
    shortcuts."""
    blocks = {
        "residual_function.1": "conv1",
        "residual_function.2.bn": "bn1",
        "residual_function.4": "conv2",
        "residual_function.5.bn": "bn2",
        f"shortcut.{shortcut}": "shortcut_conv",
        f"shortcut.{shortcut + 1}.bn": "shortcut_bn",
    }
    names = dict(stem)
    for block, name in _STAGES.items():
        for theirs, ours in blocks.items():
            names[f"{block}.{theirs}"] = f"{name}_{ours}"
    return {**names, "fc": "classifier"}


MS_RESNET = _names({"conv1.0": "stem_conv", "conv1.1.bn": "stem_bn"}, shortcut=0)
# Shortcuts begin with pooling.
DEEP = _names({"conv1.3.bn": "stem_bn", "conv1.{n}": "stem_conv{n+1}"}, shortcut=1)

_BUILDERS = {
    (2, 2, 2, 2): MSResNet18,
    (3, 4, 6, 3): MSResNet34,
    (3, 8, 32, 8): MSResNet104,
}


@reads([MS_RESNET, DEEP], "conv1.0.weight", "conv2_x.0.residual_function.1.weight")
def ms_resnet(weights):
    """MS ResNet-18, -34 and -104."""
    builder = builder_for(_BUILDERS, depths(weights, r"conv(\d{1,9})_x\.(\d{1,9})\."))
    large = builder is MSResNet104 or weights["conv1.0.weight"].shape[-1] == 7
    return Layout(
        builder,
        {
            "input_shape": (_SIDE, inputs(weights, "conv1.0")),
            "classes": outputs(weights, "fc"),
            "width": outputs(weights, "conv5_x.0.residual_function.1") / _WIDEST,
            "stem": "imagenet" if large else "cifar",
        },
        DEEP if builder is MSResNet104 else MS_RESNET,
        _NEURON,
        place="",
        prefix="module.",
    )
