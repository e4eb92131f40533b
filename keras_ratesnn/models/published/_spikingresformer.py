"""SpikingResformer, with the firing rates that its attention divides by."""

from keras_ratesnn.models.published._layouts import (
    Layout,
    blocks,
    inputs,
    outputs,
    reads,
)
from keras_ratesnn.models.spikingresformer import SpikingResformer

_SIDES = {"cifar": 32, "imagenet": 224}
"""The height and width of images for each stem."""

_NEURON = {
    "neuron": (None, "LIF(decay=0.5, decay_input=True, reset='hard', surrogate='atan')")
}

_DOWN = {"conv": "conv", "norm.bn": "bn"}
_ATTENTION = {
    "firing_rate_x": "attention_query_rate_scale",
    "firing_rate_attn": "attention_rate_scale",
    "W": "attention_key_value_conv",
    "norm.bn": "attention_key_value_bn",
    "Wproj": "attention_output_conv",
    "norm_proj.bn": "attention_output_bn",
}
_MLP = {
    "up.1": "mlp1_conv",
    "up.2.bn": "mlp1_bn",
    "conv.0.1": "mlp2_conv",
    "conv.0.2.bn": "mlp2_bn",
    "down.1": "mlp3_conv",
    "down.2.bn": "mlp3_bn",
}
_PARTS = {0: ("{2*b}", "{2*b+1}"), 1: ("{2*b+1}", "{2*b+2}"), 2: ("{2*b+1}", "{2*b+2}")}
"""The numbers of attention and of the MLP of a block in each stage; where there is
downsampling, it is 0."""


def _names():
    names = {"prologue.0": "stem_conv", "prologue.1.bn": "stem_bn"}
    for stage, (attention, mlp) in _PARTS.items():
        if stage:
            for theirs, ours in _DOWN.items():
                names[f"layers.{stage}.0.{theirs}"] = f"down{stage + 1}_{ours}"
        block = f"stage{stage + 1}_block{{b+1}}"
        for theirs, ours in _ATTENTION.items():
            names[f"layers.{stage}.{attention}.{theirs}"] = f"{block}_{ours}"
        for theirs, ours in _MLP.items():
            names[f"layers.{stage}.{mlp}.{theirs}"] = f"{block}_{ours}"
    return {**names, "classifier": "classifier"}


SPIKINGRESFORMER = _names()


@reads([SPIKINGRESFORMER], "prologue.0.weight", "layers.0.0.W.weight")
def spikingresformer(weights):
    """SpikingResformer, whose stages have blocks of two parts each."""
    stem = "imagenet" if weights["prologue.0.weight"].shape[-1] == 7 else "cifar"
    firsts = [f"layers.{stage}.{int(stage > 0)}" for stage in _PARTS]
    dims = tuple(outputs(weights, f"{first}.Wproj") for first in firsts)
    heads = tuple(weights[f"{first}.firing_rate_x"].size for first in firsts)
    depths = tuple(
        blocks(weights, rf"layers\.{stage}\.(\d{{1,9}})\.W\.") for stage in _PARTS
    )
    told = {
        "input_shape": (_SIDES[stem], inputs(weights, "prologue.0")),
        "classes": outputs(weights, "classifier"),
        "dims": dims,
        "blocks": depths,
        "heads": heads,
        "mlp_ratio": outputs(weights, "layers.0.1.up.1") // dims[0],
        "group_size": inputs(weights, "layers.0.1.conv.0.1"),
        "stem": stem,
    }
    return Layout(SpikingResformer, told, SPIKINGRESFORMER, _NEURON, place="model")
