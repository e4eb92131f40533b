"""Spikformer, QKFormer, Max-Former and Spike-driven Transformer, whose layers have the
names of Spikformer's."""

import re

import numpy as np

from keras_ratesnn.models._transformers import IMAGES, IN_STAGES
from keras_ratesnn.models.maxformer import MaxFormer
from keras_ratesnn.models.published._layouts import (
    Layout,
    blocks,
    inputs,
    outputs,
    reads,
)
from keras_ratesnn.models.published._names import named
from keras_ratesnn.models.qkformer import QKFormer
from keras_ratesnn.models.spike_driven_transformer import (
    POOLINGS,
    SpikeDrivenTransformer,
)
from keras_ratesnn.models.spikformer import EDITIONS, SCALES, Spikformer

NEURONS = {
    "neuron": (None, "LIF(decay=0.5, decay_input=True, reset='hard')"),
    "attention_neuron": (
        None,
        "LIF(decay=0.5, decay_input=True, reset='hard', threshold=0.5)",
    ),
}


def _attention(theirs, ours, kind="conv"):
    """The layers of attention, which are convolutions or linear."""
    parts = {"q": "query", "k": "key", "v": "value", "proj": "output"}
    names = {}
    for part, name in parts.items():
        names[f"{theirs}.{part}_{kind}"] = f"{ours}_{name}"
        names[f"{theirs}.{part}_bn"] = f"{ours}_{name}_bn"
    return names


def mlp(theirs, ours, layer="fc", kind="conv"):
    """The two layers of an MLP."""
    return {
        f"{theirs}.{layer}{{n}}_{kind}": f"{ours}_mlp{{n}}",
        f"{theirs}.{layer}{{n}}_bn": f"{ours}_mlp{{n}}_bn",
    }


def _units(names, theirs_before="", ours_before="", theirs_after=""):
    """Convolutions and their normalisation, from names that end in `conv`, given what
    comes before and after each name."""
    layers = {}
    for theirs, ours in names.items():
        convolution = f"{theirs_before}{theirs}{theirs_after}"
        layers[convolution] = f"{ours_before}{ours}_conv"
        layers[convolution.replace("conv", "bn")] = f"{ours_before}{ours}_bn"
    return layers


def _spikformer(kind):
    patches = {
        "proj_conv": "patches1",
        "proj_conv{n}": "patches{n+1}",
        "rpe_conv": "patches_position",
    }
    return {
        **_units(patches, "patch_embed."),
        **_attention("block.{b}.attn", "block{b+1}_attention", kind),
        **mlp("block.{b}.mlp", "block{b+1}", "fc", kind),
        "head": "classifier",
    }


def _numbered(*names):
    """Convolutions, the last of which is the shortcut around some before it."""
    ours = [*map(str, range(1, len(names))), "shortcut"]
    return dict(zip(names, ours, strict=True))


def _qkformer(first_patches, attention, layer, later="proj3_conv", last=3):
    later = _numbered(later, "proj4_conv", "proj_res_conv")
    first = _numbered("proj_conv", *first_patches, "proj_res_conv")
    return {
        # The first entry that fits counts: names of the first patches mean other layers
        # than later.
        **_units(first, "patch_embed1.", "patches1_"),
        **_units(later, "patch_embed{p}.", "patches{p}_"),
        # The last stage has another kind of attention.
        **_attention(
            f"stage{last}.{{b}}.{attention}", f"stage{last}_block{{b+1}}_attention"
        ),
        **_attention("stage{s}.{b}.tssa", "stage{s}_block{b+1}_attention"),
        **mlp("stage{s}.{b}.mlp", "stage{s}_block{b+1}", layer),
        "head": "classifier",
    }


def _maxformer(first_patches, depthwise):
    later = _numbered("max_embed1", "embed1", "max_embed2")
    depthwise_names: dict[str, str] = {}
    for stage, convolution in depthwise.items():
        theirs = f"{stage}.{{b}}.mixer.{convolution}"
        ours = f"{stage}_block{{b+1}}_depthwise"
        depthwise_names |= {theirs: ours, f"{theirs}_bn": f"{ours}_bn"}
    return {
        **_units(_numbered(*first_patches), "patch_embed1.", "patches1_"),
        **_units(later, "patch_embed{p}.", "patches{p}_", ".embed_conv"),
        **depthwise_names,
        **_attention("stage{s}.{b}.attn", "stage{s}_block{b+1}_attention"),
        **mlp("stage{s}.{b}.mlp", "stage{s}_block{b+1}"),
        "head": "classifier",
    }


SPIKFORMER = {"cifar": _spikformer("linear"), "imagenet": _spikformer("conv")}
SPIKFORMER["dvs"] = SPIKFORMER["imagenet"]
QKFORMER = {
    "cifar": _qkformer(["proj1_conv"], "ssa", "mlp"),
    "imagenet": _qkformer(["proj1_conv", "proj2_conv"], "attn", "fc"),
    "dvs": _qkformer(
        ["proj1_conv", "proj2_conv", "proj3_conv"],
        "ssa",
        "mlp",
        later="proj_conv",
        last=2,
    ),
}
MAXFORMER = {
    "cifar": _maxformer(
        ["proj_conv", "embed1.embed_conv", "embed2.embed_conv"], {"stage2": "conv"}
    ),
    "imagenet": _maxformer(
        [f"embed{number}.embed_conv" for number in (1, 2, 3, 4)],
        {"stage1": "conv5", "stage2": "conv"},
    ),
    "dvs": _maxformer(
        [
            "proj_conv",
            *(f"max_embed{number}.embed_conv" for number in (1, 2, 3)),
            "embed1.embed_conv",
        ],
        {"stage1": "conv"},
    ),
}
"""The names of the layers of each edition."""

_FIRST = {
    "proj_conv": "1",
    "proj_conv{n}": "{n+1}",
    "proj{n}_conv": "{n+1}",
    "rpe_conv": "shortcut",
    "proj_res_conv": "shortcut",
}
_LATER = _numbered("proj3_conv", "proj4_conv", "proj_res_conv")
OLDER_MAXFORMER = {
    **_units(_FIRST, "patch_embed1.", "patches1_"),
    **_units(_LATER, "patch_embed{p}.", "patches{p}_"),
    **MAXFORMER["imagenet"],
}
"""The files that Max-Former's authors published are older than the names in their
program, which reads them in order."""

_SHARED_MEMBRANES = (
    "in the authors' program self-attention's last neurons pass their "
    "membranes from each sample of a batch to the next, as with shared_membrane=True; "
    "published accuracies are of such batches: 84.25 % of HST-10-768, which is 78.70 % "
    "with shared_membrane=False (issue 14 of their program)"
)
_AXES = {"attn": 3, "tssa": 3, "ssa": 3, "mlp": 4}
_NEVER_RUN = {
    "block.{b}.norm{n}": "a layer normalisation that the authors' network does not run",
    "norm": "a layer normalisation that the authors' network does not run",
    "pos_embed": "a position that the authors' network does not add",
}
_TALKING_HEADS = {
    "block.{b}.attn.talking_heads": "a convolution that the authors' network does not "
    "run, which tells the heads"
}
_POOLING = (
    "'{imagenet}' for images of 128 x 128 pixels or more, '{dvs}' if they have two "
    "channels, else '{cifar}', the authors'"
).format(**POOLINGS)
_POOLED_ATTENTION = (
    "on CIFAR10-DVS alone the authors' program also pools the spikes "
    "of attention, which this network does not"
)
_IMAGENET_CLASSES = 1000


def _norms(network):
    """The weights of Spikformer that its authors do not run."""
    last = re.compile(r"block(\d+)_mlp2")
    channels, is_dvs = {}, False
    for layer in network.layers:
        match = last.fullmatch(layer.name)
        if match:
            block = int(match[1]) - 1
            for n in (1, 2):
                channels[f"block.{block}.norm{n}"] = layer.kernel.shape[-1]
        elif layer.name == "block1_attention_scale":
            is_dvs = layer.scale == SCALES["dvs"]
    weights = {}
    if is_dvs:
        _, tokens, channels["norm"] = network.get_layer("tokens").output.shape
        weights["pos_embed"] = np.zeros((1, tokens, channels["norm"]), "float32")
    for name, size in channels.items():
        weights[f"{name}.weight"] = np.ones(size, "float32")
        weights[f"{name}.bias"] = np.zeros(size, "float32")
    return weights


@reads(
    [SPIKFORMER["cifar"], SPIKFORMER["imagenet"]],
    "patch_embed.proj_conv.weight",
    "patch_embed.rpe_conv.weight",
    not_run=_norms,
)
def spikformer(weights):
    """Spikformer, with dense layers on CIFAR and convolutions elsewhere."""
    dense = "block.0.attn.q_linear.weight" in weights
    first = f"block.0.mlp.fc1_{'linear' if dense else 'conv'}"
    # On event frames MLPs are convolutions over tokens, on ImageNet over images.
    is_dvs = "pos_embed" in weights or weights[f"{first}.weight"].ndim == 3
    edition = "imagenet"
    if dense:
        edition = "cifar"
    elif is_dvs:
        edition = "dvs"
    layout = _layout(
        weights,
        Spikformer,
        EDITIONS,
        SPIKFORMER,
        edition,
        "patch_embed.proj_conv",
        "patch_embed.proj_conv3",
        r"block\.(\d{1,9})\.",
        first,
    )
    # On CIFAR all are linear.
    axes = {"cifar": {}, "imagenet": _AXES, "dvs": {**_AXES, "mlp": 3}}[edition]
    place = "model" if edition == "dvs" else "state_dict"
    settings = ("timesteps", "heads") if dense else ("timesteps",)
    return layout._replace(unused=_NEVER_RUN, axes=axes, place=place, settings=settings)


@reads([*QKFORMER.values()], "patch_embed1.proj1_conv.weight")
def qkformer(weights):
    """QKFormer, whose first patch embedding has one convolution more on ImageNet, and
    two more on event frames."""
    more = ("patch_embed1.proj2_conv.weight", "patch_embed1.proj3_conv.weight")
    edition = ("cifar", "imagenet", "dvs")[sum(name in weights for name in more)]
    layout = _in_stages(weights, QKFormer, QKFORMER, edition)
    assumed = {
        **layout.assumed,
        "shared_membrane": (False, "False, each sample by itself"),
    }
    place = "state_dict" if edition == "cifar" else "model"
    return layout._replace(assumed=assumed, note=_SHARED_MEMBRANES, place=place)


@reads([*MAXFORMER.values()])
def maxformer(weights):
    """Max-Former, whose first stage has no depthwise convolutions on CIFAR, and which
    has two stages on event frames."""
    if {
        "patch_embed2.proj3_conv.weight",
        "stage1.0.mixer.conv5.weight",
    } <= weights.keys():
        older = {"imagenet": OLDER_MAXFORMER}
        return _in_stages(weights, MaxFormer, older, "imagenet")
    if "patch_embed2.max_embed1.embed_conv.weight" not in weights:
        return None
    is_dvs = "patch_embed1.max_embed1.embed_conv.weight" in weights
    edition = "imagenet"
    if is_dvs or "patch_embed1.proj_conv.weight" in weights:
        edition = "dvs" if is_dvs else "cifar"
    layout = _in_stages(weights, MaxFormer, MAXFORMER, edition)
    return layout._replace(place="model" if is_dvs else "state_dict")


def _talking_heads(network):
    """The weights of Spike-driven Transformer that its authors do not run, and that
    tell the heads."""
    attention = re.compile(r"block(\d+)_attention_neuron")
    weights = {}
    for layer in network.layers:
        match = attention.fullmatch(layer.name)
        if match:
            heads = layer.output.shape[-2]
            name = f"block.{int(match[1]) - 1}.attn.talking_heads.weight"
            weights[name] = np.zeros((heads, heads, 1), "float32")
    return weights


@reads(
    [SPIKFORMER["imagenet"]],
    "block.0.attn.talking_heads.weight",
    not_run=_talking_heads,
)
def sdt_v1(weights):
    """Spike-driven Transformer, whose unused weights tell the heads."""
    channels = inputs(weights, "patch_embed.proj_conv")
    dims = outputs(weights, "patch_embed.proj_conv3")
    classes, hidden = outputs(weights, "head"), outputs(weights, "block.0.mlp.fc1_conv")
    edition = "imagenet" if classes == _IMAGENET_CLASSES else "cifar"
    if channels == 2:
        edition = "dvs"
    told = {
        "input_shape": (IMAGES[edition][0], channels),
        "classes": classes,
        "dims": dims,
        "blocks": blocks(weights, r"block\.(\d{1,9})\."),
        "heads": outputs(weights, "block.0.attn.talking_heads"),
        "mlp_ratio": hidden // dims,
    }
    assumed = {**NEURONS, "pooling_stat": (None, _POOLING)}
    note = _POOLED_ATTENTION if edition == "dvs" else ""
    axes = {"attn": 4, "mlp": 4}
    layout = Layout(
        SpikeDrivenTransformer,
        told,
        SPIKFORMER["imagenet"],
        assumed,
        settings=("timesteps", "pooling_stat"),
    )
    return layout._replace(
        unused=_TALKING_HEADS, note=note, axes=axes, needs={"dvs_mode": False}
    )


def _in_stages(weights, builder, tables, edition):
    names, last = tables[edition], len(IN_STAGES[edition].first_blocks) + 1
    return _layout(
        weights,
        builder,
        IN_STAGES,
        tables,
        edition,
        named(names, "patches1_1_conv"),
        named(names, "patches{p}_1_conv", p=last),
        r"stage(\d{1,9})\.(\d{1,9})\.",
        named(names, "stage{s}_block{b+1}_mlp{n}", s=last, b=0, n=1),
    )


def _layout(weights, builder, editions, tables, edition, first, last, block, hidden):
    """The layout of a network, given the names of its first patches, of its last ones,
    and of a hidden layer, and the pattern of the names of blocks."""
    dims = outputs(weights, last)
    told = {
        "input_shape": (IMAGES[edition][0], inputs(weights, first)),
        "classes": outputs(weights, "head"),
        "edition": edition,
        "dims": dims,
        "blocks": blocks(weights, block),
        "mlp_ratio": outputs(weights, hidden) // dims,
    }
    heads = editions[edition].heads(dims)
    assumed = {
        **NEURONS,
        "heads": (heads or None, f"{heads}, the authors' for {edition}"),
    }
    return Layout(builder, told, tables[edition], assumed, axes=_AXES)
