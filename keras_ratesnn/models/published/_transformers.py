"""Spikformer, QKFormer, Max-Former and Spike-driven Transformer, whose layers have the names of Spikformer's."""

from keras_ratesnn.models._transformers import IMAGES, IN_STAGES
from keras_ratesnn.models.maxformer import MaxFormer
from keras_ratesnn.models.published._layouts import Layout, blocks, inputs, outputs
from keras_ratesnn.models.qkformer import QKFormer
from keras_ratesnn.models.spike_driven_transformer import POOLINGS, SpikeDrivenTransformer
from keras_ratesnn.models.spikformer import EDITIONS, Spikformer

NEURONS = {
    "neuron": (None, "LIF(decay=0.5, decay_input=True, reset='hard')"),
    "attention_neuron": (None, "LIF(decay=0.5, decay_input=True, reset='hard', threshold=0.5)"),
}


def _attention(theirs, ours):
    """The layers of attention, which are dense or convolutions."""
    parts = {"q": "query", "k": "key", "v": "value", "proj": "output"}
    return {
        **{f"{theirs}.{part}_{kind}": f"{ours}_{name}" for part, name in parts.items() for kind in ("conv", "linear")},
        **{f"{theirs}.{part}_bn": f"{ours}_{name}_bn" for part, name in parts.items()},
    }


def _mlp(theirs, ours, layer="fc"):
    """The two layers of an MLP."""
    return {
        **{f"{theirs}.{layer}{{n}}_{kind}": f"{ours}_mlp{{n}}" for kind in ("conv", "linear")},
        f"{theirs}.{layer}{{n}}_bn": f"{ours}_mlp{{n}}_bn",
    }


def _units(names):
    """Convolutions and their normalisation, from names that end in `conv`."""
    return {
        **{theirs: f"{ours}_conv" for theirs, ours in names.items()},
        **{theirs.replace("conv", "bn"): f"{ours}_bn" for theirs, ours in names.items()},
    }


SPIKFORMER = {
    **_units(
        {
            "patch_embed.proj_conv": "patches1",
            "patch_embed.proj_conv{n}": "patches{n+1}",
            "patch_embed.rpe_conv": "patches_position",
        }
    ),
    **_attention("block.{b}.attn", "block{b+1}_attention"),
    **_mlp("block.{b}.mlp", "block{b+1}"),
    "head": "classifier",
}
QKFORMER = {
    **_units(
        {
            "patch_embed1.proj_conv": "patches1_1",
            "patch_embed1.proj{n}_conv": "patches1_{n+1}",
            "patch_embed{p}.proj3_conv": "patches{p}_1",
            "patch_embed{p}.proj4_conv": "patches{p}_2",
            "patch_embed{p}.proj_res_conv": "patches{p}_shortcut",
        }
    ),
    **_attention("stage{s}.{b}.tssa", "stage{s}_block{b+1}_attention"),
    **_attention("stage{s}.{b}.ssa", "stage{s}_block{b+1}_attention"),
    **_attention("stage{s}.{b}.attn", "stage{s}_block{b+1}_attention"),
    **_mlp("stage{s}.{b}.mlp", "stage{s}_block{b+1}", "mlp"),
    **_mlp("stage{s}.{b}.mlp", "stage{s}_block{b+1}"),
    "head": "classifier",
}
MAXFORMER = {
    **_units(
        {
            "patch_embed{p}.max_embed1.embed_conv": "patches{p}_1",
            "patch_embed{p}.embed1.embed_conv": "patches{p}_2",
            "patch_embed{p}.max_embed2.embed_conv": "patches{p}_shortcut",
        }
    ),
    "stage{s}.{b}.mixer.conv": "stage{s}_block{b+1}_depthwise",
    "stage{s}.{b}.mixer.conv_bn": "stage{s}_block{b+1}_depthwise_bn",
    "stage{s}.{b}.mixer.conv5": "stage{s}_block{b+1}_depthwise",
    "stage{s}.{b}.mixer.conv5_bn": "stage{s}_block{b+1}_depthwise_bn",
    **_attention("stage{s}.{b}.attn", "stage{s}_block{b+1}_attention"),
    **_mlp("stage{s}.{b}.mlp", "stage{s}_block{b+1}"),
    "head": "classifier",
}
_FIRST_PATCHES = {
    "cifar": {
        "patch_embed1.proj_conv": "patches1_1",
        "patch_embed1.embed1.embed_conv": "patches1_2",
        "patch_embed1.embed2.embed_conv": "patches1_shortcut",
    },
    "imagenet": {
        "patch_embed1.embed1.embed_conv": "patches1_1",
        "patch_embed1.embed2.embed_conv": "patches1_2",
        "patch_embed1.embed3.embed_conv": "patches1_3",
        "patch_embed1.embed4.embed_conv": "patches1_shortcut",
    },
}
"""Max-Former's first patch embedding, whose names mean other layers in each edition."""

_SHARED_MEMBRANES = (
    "here each sample has its own membranes. In the authors' program the last neurons of self-attention pass theirs from one "
    "sample to the next, so what it computes, and its published accuracy, depend on the batch; with one sample they agree"
)
_NEVER_RUN = {"block.{b}.norm{n}": "a layer normalisation that the authors' network does not run"}
_TALKING_HEADS = {"block.{b}.attn.talking_heads": "a convolution that the authors' network does not run, which tells the heads"}
_POOLING = (
    "'{imagenet}' for images of 128 x 128 pixels or more, '{dvs}' if they have two channels, else '{cifar}', the authors'"
).format(**POOLINGS)
_POOLED_ATTENTION = "on CIFAR10-DVS alone the authors' program also pools the spikes of attention, which this network does not"
_IMAGENET_CLASSES = 1000


def spikformer(weights):
    """Spikformer, with dense layers on CIFAR and convolutions elsewhere."""
    if not {"patch_embed.proj_conv.weight", "patch_embed.rpe_conv.weight"} <= weights.keys():
        return None
    channels = inputs(weights, "patch_embed.proj_conv")
    dense = "block.0.attn.q_linear.weight" in weights
    edition = "cifar" if dense else "dvs" if channels == 2 else "imagenet"
    dims = outputs(weights, "patch_embed.proj_conv3")
    hidden = outputs(weights, f"block.0.mlp.fc1_{'linear' if dense else 'conv'}")
    number = blocks(weights, r"block\.(\d+)\.")
    layout = _layout(weights, Spikformer, EDITIONS, SPIKFORMER, edition, channels, dims, number, hidden)
    return layout._replace(unused=_NEVER_RUN)


def qkformer(weights):
    """QKFormer, whose first patch embedding has one convolution more on ImageNet."""
    if "patch_embed1.proj1_conv.weight" not in weights:
        return None
    edition = "imagenet" if "patch_embed1.proj2_conv.weight" in weights else "cifar"
    layer = "mlp1_conv" if "stage1.0.mlp.mlp1_conv.weight" in weights else "fc1_conv"
    layout = _in_stages(weights, QKFormer, QKFORMER, edition, "patch_embed1.proj_conv", "patch_embed3.proj3_conv", layer)
    return layout._replace(note=_SHARED_MEMBRANES)


def maxformer(weights):
    """Max-Former, whose first stage has no depthwise convolutions on CIFAR."""
    if "patch_embed2.max_embed1.embed_conv.weight" not in weights:
        return None
    edition = "cifar" if "patch_embed1.proj_conv.weight" in weights else "imagenet"
    # The first entry that fits counts.
    names = {**_units(_FIRST_PATCHES[edition]), **MAXFORMER}
    first = next(iter(_FIRST_PATCHES[edition]))
    return _in_stages(weights, MaxFormer, names, edition, first, "patch_embed3.max_embed1.embed_conv", "fc1_conv")


def sdt_v1(weights):
    """Spike-driven Transformer, whose unused weights tell the heads."""
    if "block.0.attn.talking_heads.weight" not in weights:
        return None
    channels, dims = inputs(weights, "patch_embed.proj_conv"), outputs(weights, "patch_embed.proj_conv3")
    classes, hidden = outputs(weights, "head"), outputs(weights, "block.0.mlp.fc1_conv")
    edition = "dvs" if channels == 2 else "imagenet" if classes == _IMAGENET_CLASSES else "cifar"
    found = {
        "input_shape": (IMAGES[edition][0], channels),
        "classes": classes,
        "dims": dims,
        "blocks": blocks(weights, r"block\.(\d+)\."),
        "heads": outputs(weights, "block.0.attn.talking_heads"),
        "mlp_ratio": hidden // dims,
    }
    assumed = {**NEURONS, "pooling_stat": (None, _POOLING)}
    note = _POOLED_ATTENTION if channels == 2 else ""
    return Layout(SpikeDrivenTransformer, found, SPIKFORMER, assumed, unused=_TALKING_HEADS, note=note)


def _in_stages(weights, builder, names, edition, first, last_patches, layer):
    channels, dims = inputs(weights, first), outputs(weights, last_patches)
    number, hidden = blocks(weights, r"stage(\d+)\.(\d+)\."), outputs(weights, f"stage3.0.mlp.{layer}")
    return _layout(weights, builder, IN_STAGES, names, edition, channels, dims, number, hidden)


def _layout(weights, builder, editions, names, edition, channels, dims, number, hidden):
    found = {
        "input_shape": (IMAGES[edition][0], channels),
        "classes": outputs(weights, "head"),
        "edition": edition,
        "dims": dims,
        "blocks": number,
        "mlp_ratio": hidden // dims,
    }
    heads = editions[edition].heads(dims)
    return Layout(builder, found, names, {**NEURONS, "heads": (heads or None, f"{heads}, the authors' for {edition}")})
