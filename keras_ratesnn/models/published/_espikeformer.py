"""E-SpikeFormer, the base and the large networks of Spike-driven Transformer V3, and
Meta-SpikeFormer, which is V2."""

from keras_ratesnn.models.espikeformer import ESpikeFormer
from keras_ratesnn.models.espikeformer_large import ESpikeFormerLarge
from keras_ratesnn.models.metaspikeformer import MetaSpikeFormer
from keras_ratesnn.models.published._layouts import (
    Layout,
    blocks,
    inputs,
    outputs,
    reads,
)
from keras_ratesnn.models.published._transformers import NEURONS, mlp

_SIDE = 224
_HEADS = (8, "8, the authors' default")

_STAGES = {
    "ConvBlock1_1.{b}": "stage1_block{b+1}",
    "ConvBlock1_2.{b}": "stage2_block{b+1}",
}
_STAGES |= {"ConvBlock2_1.0": "stage3_block1", "ConvBlock2_2.0": "stage3_block2"}
"""The blocks of convolutions; the third stage has two of one block each."""


_DOWNSAMPLINGS = "downsample1_1", "downsample1_2", "downsample2", "downsample3"
"""The downsamplings that all networks have."""


def _downsamplings(names):
    """A convolution and its normalisation for each stage."""
    layers = {}
    for n, name in enumerate(names, 1):
        layers[f"{name}.encode_conv"] = f"down{n}_conv"
        layers[f"{name}.encode_bn"] = f"down{n}_bn"
    return layers


def _separable(theirs, ours):
    """The three convolutions of a separable convolution."""
    parts = {"pwconv1": "expand", "dwconv": "depthwise", "pwconv2": "project"}
    layers = {}
    for part, name in parts.items():
        layers[f"{theirs}.{part}.0"] = f"{ours}_separable_{name}"
        layers[f"{theirs}.{part}.1"] = f"{ours}_separable_{name}_bn"
    return layers


_PARTS = {"q_conv": "query", "k_conv": "key", "v_conv": "value", "proj_conv": "output"}


def _attending(theirs, ours, ends):
    """A block with attention, given the ends of the names of its layers, and its
    MLP."""
    layers = {}
    for part, name in _PARTS.items():
        for end, our_end in ends.items():
            layers[f"{theirs}.attn.{part}.{end}"] = f"{ours}_attention_{name}{our_end}"
    return {**layers, **mlp(f"{theirs}.mlp", ours)}


def _attention(theirs, ours):
    """A base block with attention, whose layers are a convolution and its
    normalisation."""
    return {
        **_separable(f"{theirs}.conv", ours),
        **_attending(theirs, ours, {"0": "", "1": "_bn"}),
    }


def _large_attention(theirs, ours):
    """A large block with attention, whose layers are two convolutions with three
    normalisations; and its two factors.

    In the smaller network it begins with two convolutions more.
    """
    ends = {
        "0.conv1.0": "_hidden",
        "0.conv1.1": "_hidden_bn",
        "0.conv2.0": "",
        "0.conv2.1": "_bn",
        "1": "_bn2",
    }
    return {
        f"{theirs}.rep_conv.conv{{n}}.0": f"{ours}_shortcut{{n}}",
        f"{theirs}.rep_conv.conv{{n}}.1": f"{ours}_shortcut{{n}}_bn",
        **_attending(theirs, ours, ends),
        f"{theirs}.layer_scale1": f"{ours}_attention_factor",
        f"{theirs}.layer_scale2": f"{ours}_mlp_factor",
    }


def _meta_attention(theirs, ours):
    """A block with attention of Meta-SpikeFormer, whose layers are three convolutions
    and three normalisations."""
    ends = {
        "0.body.0": "_hidden",
        "0.body.1.bn": "_hidden_bn",
        "0.body.2.0": "_depthwise",
        "0.body.2.1": "",
        "0.body.2.2": "_bn",
        "1": "_bn2",
    }
    return _attending(theirs, ours, ends)


def _meta_separable(theirs, ours):
    """The separable convolution of Meta-SpikeFormer, with two normalisations."""
    parts = {
        "pwconv1": "expand",
        "bn1": "expand_bn",
        "dwconv": "depthwise",
        "pwconv2": "project",
        "bn2": "project_bn",
    }
    return {
        f"{theirs}.{part}": f"{ours}_separable_{name}" for part, name in parts.items()
    }


def _base(separable, attention):
    """The base networks of V3, or those of V2; functions of their names and ours give
    the parts that differ."""
    names = _downsamplings([*_DOWNSAMPLINGS, "downsample4"])
    for block, name in _STAGES.items():
        names |= separable(f"{block}.Conv", name)
        names[f"{block}.conv{{n}}"] = f"{name}_{{n}}_conv"
        names[f"{block}.bn{{n}}"] = f"{name}_{{n}}_bn"
    names |= attention("block3.{b}", "stage4_block{b+1}")
    names |= attention("block4.{b}", "stage5_block{b+1}")
    return {**names, "head": "classifier"}


def _large():
    """The large networks."""
    names = _downsamplings(_DOWNSAMPLINGS)
    for block, name in _STAGES.items():
        names[f"{block}.conv{{n}}.0.0"] = f"{name}_{{n}}_conv"
        names[f"{block}.conv{{n}}.0.1"] = f"{name}_{{n}}_bn"
    names |= _large_attention("block3.{b}", "stage4_block{b+1}")
    return {**names, "head": "classifier", "head_kd": "distilled_classifier"}


BASE = _base(_separable, _attention)
META = {**_base(_meta_separable, _meta_attention), "head_kd": "distilled_classifier"}
LARGE = _large()


_PROJECTION = "block3.0.rep_conv.conv"
_NOT_RUN = {
    "block3.{b}.rep_conv.conv{n}.{m}": "convolutions that cannot run: their "
    "normalisation is of other channels"
}
"""Weights in the files that the authors published, to why they are not used."""


@reads([BASE], "ConvBlock1_1.0.Conv.pwconv1.0.weight", "block3.0.attn.q_conv.0.weight")
def espikeformer(weights):
    """The base networks, whose last two blocks with attention are a stage of their
    own."""
    layout = _layout(weights, ESpikeFormer, BASE)
    neurons = (
        "ILIF(levels=4, decay=0.0, normalize=True), not normalised before the "
        "classifier"
    )
    unused = {
        "head_kd": "a second classifier, for distillation, without which the authors "
        "run the network"
    }
    return layout._replace(
        assumed={"neuron": (None, neurons), "heads": _HEADS},
        unused=unused,
        axes={"mlp": 3},
    )


@reads(
    [LARGE],
    "ConvBlock1_1.0.conv1.0.0.weight",
    "block3.0.attn.q_conv.0.conv1.0.weight",
)
def espikeformer_large(weights):
    """The large networks; with a second classifier for distillation, their output is
    the mean of both."""
    layout = _layout(weights, ESpikeFormerLarge, LARGE)
    neurons = "ILIF(levels=4, decay=0.0, normalize=True, round_half_up=True)"
    runs = False
    if f"{_PROJECTION}1.0.weight" in weights:
        channels = outputs(weights, f"{_PROJECTION}1.0")
        runs = channels == outputs(weights, f"{_PROJECTION}1.1")
    told = {
        **layout.told,
        "shortcut_projection": runs,
        "distilled": "head_kd.weight" in weights,
    }
    axes = {"attn": 3, "mlp": 3, "rep_conv": 3, "layer_scale1": 1, "layer_scale2": 1}
    return layout._replace(
        told=told,
        assumed={"neuron": (None, neurons), "heads": _HEADS},
        unused={} if runs else _NOT_RUN,
        axes=axes,
    )


@reads(
    [META],
    "ConvBlock1_1.0.Conv.pwconv1.weight",
    "block3.0.attn.q_conv.0.body.0.weight",
)
def sdt_v2(weights):
    """Meta-SpikeFormer; with a second classifier for distillation, its output is the
    mean of both."""
    layout = _layout(weights, MetaSpikeFormer, META)
    told = {**layout.told, "distilled": "head_kd.weight" in weights}
    return layout._replace(
        told=told, assumed={**NEURONS, "heads": _HEADS}, axes={"mlp": 3}
    )


def _layout(weights, builder, names):
    first, *stages = (theirs for theirs in names if theirs.endswith(".encode_conv"))
    mlp = "block3.0.mlp.fc1_conv"
    told = {
        "input_shape": (_SIDE, inputs(weights, first)),
        "classes": outputs(weights, "head"),
        "dims": tuple(outputs(weights, stage) for stage in stages),
        "blocks": blocks(weights, r"block([34])\.(\d{1,9})\."),
        "mlp_ratio": outputs(weights, mlp) // inputs(weights, mlp),
    }
    return Layout(builder, told, names, {}, place="model")
