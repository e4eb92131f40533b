"""E-SpikeFormer, the base and the large networks of Spike-driven Transformer V3, and
Meta-SpikeFormer, which is V2."""

from keras_ratesnn.models.espikeformer import ESpikeFormer
from keras_ratesnn.models.espikeformer_large import ESpikeFormerLarge
from keras_ratesnn.models.metaspikeformer import MetaSpikeFormer
from keras_ratesnn.models.published._layouts import Layout, blocks, inputs, outputs
from keras_ratesnn.models.published._transformers import NEURONS, mlp

_SIDE = 224
_HEADS = (8, "8, the authors' default")

_STAGES = {
    "ConvBlock1_1.{b}": "stage1_block{b+1}",
    "ConvBlock1_2.{b}": "stage2_block{b+1}",
}
_STAGES |= {"ConvBlock2_1.0": "stage3_block1", "ConvBlock2_2.0": "stage3_block2"}
"""The blocks of convolutions; the third stage has two of one block each."""


def _downsamplings(names):
    """A convolution and its normalisation for each stage."""
    parts = {"encode_conv": "conv", "encode_bn": "bn"}
    return {
        f"{name}.{part}": f"down{n}_{ours}"
        for n, name in enumerate(names, 1)
        for part, ours in parts.items()
    }


def _separable(theirs, ours):
    """The three convolutions of a separable convolution."""
    parts = {"pwconv1": "expand", "dwconv": "depthwise", "pwconv2": "project"}
    return {
        f"{theirs}.{part}.{n}": f"{ours}_separable_{name}{ending}"
        for part, name in parts.items()
        for n, ending in enumerate(("", "_bn"))
    }


_PARTS = {"q_conv": "query", "k_conv": "key", "v_conv": "value", "proj_conv": "output"}


def _attending(theirs, ours, ends):
    """A block with attention, given the ends of the names of its layers, and its
    MLP."""
    return {
        **{
            f"{theirs}.attn.{part}.{their_end}": f"{ours}_attention_{name}{our_end}"
            for part, name in _PARTS.items()
            for their_end, our_end in ends.items()
        },
        **mlp(f"{theirs}.mlp", ours),
    }


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
    projection = {
        f"{theirs}.rep_conv.conv{{n}}.{place}": f"{ours}_shortcut{{n}}{end}"
        for place, end in ((0, ""), (1, "_bn"))
    }
    factors = {
        f"{theirs}.layer_scale1": f"{ours}_attention_factor",
        f"{theirs}.layer_scale2": f"{ours}_mlp_factor",
    }
    return {**projection, **_attending(theirs, ours, ends), **factors}


def _meta_attention(theirs, ours):
    """A block with attention of Meta-SpikeFormer, whose layers are three convolutions
    and three normalisations."""
    of_body = {
        "0": "_hidden",
        "1.bn": "_hidden_bn",
        "2.0": "_depthwise",
        "2.1": "",
        "2.2": "_bn",
    }
    return _attending(
        theirs,
        ours,
        {**{f"0.body.{place}": end for place, end in of_body.items()}, "1": "_bn2"},
    )


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
    return {
        **_downsamplings(
            (
                "downsample1_1",
                "downsample1_2",
                "downsample2",
                "downsample3",
                "downsample4",
            )
        ),
        **{
            theirs: ours
            for block, name in _STAGES.items()
            for theirs, ours in {
                **separable(f"{block}.Conv", name),
                f"{block}.conv{{n}}": f"{name}_{{n}}_conv",
                f"{block}.bn{{n}}": f"{name}_{{n}}_bn",
            }.items()
        },
        **attention("block3.{b}", "stage4_block{b+1}"),
        **attention("block4.{b}", "stage5_block{b+1}"),
        "head": "classifier",
    }


BASE = _base(_separable, _attention)
META = {**_base(_meta_separable, _meta_attention), "head_kd": "distilled_classifier"}
LARGE = {
    **_downsamplings(("downsample1_1", "downsample1_2", "downsample2", "downsample3")),
    **{
        f"{block}.conv{{n}}.0.0": f"{name}_{{n}}_conv"
        for block, name in _STAGES.items()
    },
    **{f"{block}.conv{{n}}.0.1": f"{name}_{{n}}_bn" for block, name in _STAGES.items()},
    **_large_attention("block3.{b}", "stage4_block{b+1}"),
    "head": "classifier",
    "head_kd": "distilled_classifier",
}


_PROJECTION = "block3.0.rep_conv.conv"
_NOT_RUN = {
    "block3.{b}.rep_conv.conv{n}.{m}": "convolutions that cannot run: their "
    "normalisation is of other channels"
}
"""Of the files that the authors published."""


def espikeformer(weights):
    """The base networks, whose last two blocks with attention are a stage of their
    own."""
    if (
        not {"ConvBlock1_1.0.Conv.pwconv1.0.weight", "block3.0.attn.q_conv.0.weight"}
        <= weights.keys()
    ):
        return None
    layout = _base_layout(weights, ESpikeFormer, BASE)
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


def espikeformer_large(weights):
    """The large networks; with a second classifier for distillation, their output is
    the mean of both."""
    if (
        not {"ConvBlock1_1.0.conv1.0.0.weight", "block3.0.attn.q_conv.0.conv1.0.weight"}
        <= weights.keys()
    ):
        return None
    stages, number = (
        ("downsample1_2", "downsample2", "downsample3"),
        blocks(weights, r"block3\.(\d{1,9})\."),
    )
    layout = _layout(weights, ESpikeFormerLarge, LARGE, stages, number)
    neurons = "ILIF(levels=4, decay=0.0, normalize=True, round_half_up=True)"
    projected = f"{_PROJECTION}1.0.weight" in weights
    runs = projected and outputs(weights, f"{_PROJECTION}1.0") == outputs(
        weights, f"{_PROJECTION}1.1"
    )
    found = {
        **layout.found,
        "shortcut_projection": runs,
        "distilled": "head_kd.weight" in weights,
    }
    axes = {"attn": 3, "mlp": 3, "rep_conv": 3, "layer_scale1": 1, "layer_scale2": 1}
    return layout._replace(
        found=found,
        assumed={"neuron": (None, neurons), "heads": _HEADS},
        unused={} if runs else _NOT_RUN,
        axes=axes,
    )


def sdt_v2(weights):
    """Meta-SpikeFormer; with a second classifier for distillation, its output is the
    mean of both."""
    if (
        not {
            "ConvBlock1_1.0.Conv.pwconv1.weight",
            "block3.0.attn.q_conv.0.body.0.weight",
        }
        <= weights.keys()
    ):
        return None
    layout = _base_layout(weights, MetaSpikeFormer, META)
    found = {**layout.found, "distilled": "head_kd.weight" in weights}
    return layout._replace(
        found=found, assumed={**NEURONS, "heads": _HEADS}, axes={"mlp": 3}
    )


def _base_layout(weights, builder, names):
    stages = ("downsample1_2", "downsample2", "downsample3", "downsample4")
    return _layout(
        weights, builder, names, stages, blocks(weights, r"block([34])\.(\d{1,9})\.")
    )


def _layout(weights, builder, names, stages, number):
    found = {
        "input_shape": (_SIDE, inputs(weights, "downsample1_1.encode_conv")),
        "classes": outputs(weights, "head"),
        "dims": tuple(outputs(weights, f"{stage}.encode_conv") for stage in stages),
        "blocks": number,
        "mlp_ratio": outputs(weights, "block3.0.mlp.fc1_conv")
        // inputs(weights, "block3.0.mlp.fc1_conv"),
    }
    return Layout(builder, found, names, {}, place="model")
