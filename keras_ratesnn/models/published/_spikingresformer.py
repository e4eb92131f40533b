"""SpikingResformer, with the firing rates that its attention divides by."""

from keras_ratesnn.models.published._layouts import Layout, blocks, inputs, outputs
from keras_ratesnn.models.spikingresformer import SpikingResformer

_SIDES = {"cifar": 32, "imagenet": 224}
"""The height and width of images for each stem."""

_NEURON = {"neuron": (None, "LIF(decay=0.5, decay_input=True, reset='hard')")}

_DOWN = {"conv": "conv", "norm.bn": "bn"}
_BETWEEN = {
    "prologue.0": "stem_conv",
    "prologue.1.bn": "stem_bn",
    **{f"layers.{stage}.0.{theirs}": f"down{stage + 1}_{ours}" for stage in (1, 2) for theirs, ours in _DOWN.items()},
    "classifier": "classifier",
}

_ATTENTION = {
    "firing_rate_x": "attention_query_rate_scale",
    "firing_rate_attn": "attention_rate_scale",
    "W": "attention_key_value_conv",
    "norm.bn": "attention_key_value_bn",
    "Wproj": "attention_output_conv",
    "norm_proj.bn": "attention_output_bn",
}
_MLP = {
    f"{part}.{place}": f"mlp{number}_{layer}"
    for number, part in enumerate(("up", "conv.0", "down"), 1)
    for place, layer in (("1", "conv"), ("2.bn", "bn"))
}


def spikingresformer(weights):
    """SpikingResformer, whose stages have parts with numbers: downsampling, except in the first, and attention and MLPs."""
    if not {"prologue.0.weight", "layers.0.0.W.weight"} <= weights.keys():
        return None
    # Of two parts each, and downsampling.
    depths = tuple((blocks(weights, rf"layers\.{stage}\.(\d+)\.") + (stage == 0)) // 2 for stage in range(3))
    names = dict(_BETWEEN)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            part, ours = 2 * block + (stage > 0), f"stage{stage + 1}_block{block + 1}"
            names |= {f"layers.{stage}.{part}.{theirs}": f"{ours}_{name}" for theirs, name in _ATTENTION.items()}
            names |= {f"layers.{stage}.{part + 1}.{theirs}": f"{ours}_{name}" for theirs, name in _MLP.items()}
    stem = "imagenet" if weights["prologue.0.weight"].shape[-1] == 7 else "cifar"
    firsts = [f"layers.{stage}.{int(stage > 0)}" for stage in range(3)]
    dims = tuple(outputs(weights, f"{first}.Wproj") for first in firsts)
    found = {
        "input_shape": (_SIDES[stem], inputs(weights, "prologue.0")),
        "classes": outputs(weights, "classifier"),
        "dims": dims,
        "blocks": depths,
        "heads": tuple(weights[f"{first}.firing_rate_x"].size for first in firsts),
        "mlp_ratio": outputs(weights, "layers.0.1.up.1") // dims[0],
        "group_size": inputs(weights, "layers.0.1.conv.0.1"),
        "stem": stem,
    }
    return Layout(SpikingResformer, found, names, _NEURON)
