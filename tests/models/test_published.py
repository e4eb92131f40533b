"""Checkpoints of the authors of networks compute here what they compute in the authors'
programs."""

import argparse

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, saved_and_loaded
from published_cases import FOLDER, Case, counted

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF
from keras_ratesnn.models import from_checkpoint, to_checkpoint

BY_BACKEND = ["sew_resnet18", "qkformer_imagenet", "espikeformer_large"]
ON_TORCH = [
    "ratebp_resnet19",
    "ratebp_vggsnn",
    "spikformer_cifar",
    "maxformer_imagenet",
    "sdt_v1",
    "sdt_v2",
]
ON_TORCH += [
    "spikingresformer",
    "ms_resnet18",
    "qkformer_dvs",
    "maxformer_dvs",
    "espikeformer_large_base",
]
"""With those above one of each family; elsewhere, and of all others, they are slow
tests."""

OTHERS = [
    *(
        "ratebp_resnet18",
        "ratebp_vgg11",
        "ratebp_sew_resnet18",
        "ratebp_preact_resnet18",
    ),
    *("spikformer_imagenet", "qkformer_cifar", "maxformer_cifar", "espikeformer"),
]

QUICK = {*BY_BACKEND, *(ON_TORCH if BACKEND == "torch" else ())}
CASES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in BY_BACKEND + ON_TORCH + OTHERS
]

on_torch = pytest.mark.runs_once


@pytest.mark.on_each_backend
@pytest.mark.parametrize("name", CASES)
def test_logits_and_spikes_of_all_layers_steps_and_samples_are_the_authors(name):
    case = Case(name)
    model = case.model()
    assert_computes(model, case.x, case.logits)
    expected, found = case.counts(), counted(model, case.x)
    expected.pop(None, None)
    assert found.keys() == expected.keys()
    assert {
        layer for layer in expected if not np.array_equal(found[layer], expected[layer])
    } == set()


@pytest.mark.parametrize(
    "name",
    ["qkformer_cifar", pytest.param("qkformer_imagenet", marks=pytest.mark.slow)],
)
def test_qkformer_with_a_shared_membrane_computes_what_its_program_does_with_a_batch(
    name,
):
    case = Case(name)
    model = case.model(shared_membrane=True)
    assert "shared_membrane" not in model.checkpoint_report.assumed
    expected = case.arrays["logits"]
    assert_computes(model, case.x, expected)
    rates = rsnn.analysis.firing_rates(model, case.x)
    found = {
        layer: np.rint(np.asarray(steps) * neurons.size * len(case.x))
        for layer, steps, neurons in zip(
            rates.layers, rates.by_step, rates.by_neuron, strict=True
        )
    }
    for layer, counts in case.counts(batch=True).items():
        np.testing.assert_array_equal(found[layer], counts.sum(axis=0), err_msg=layer)
    # Also step by step.
    steps = sum(
        keras.ops.convert_to_numpy(model.step(case.x)) for _ in range(model.timesteps)
    )
    np.testing.assert_allclose(steps / model.timesteps, expected, rtol=0, atol=1e-4)


def test_a_shared_membrane_is_saved_and_refuses_what_takes_samples_apart(tmp_path):
    images = (16, 16, 3)
    built = rsnn.models.QKFormer(
        images, timesteps=2, dims=64, blocks=3, shared_membrane=True
    )
    model = saved_and_loaded(built)
    model.compile("sgd", "mse")
    x, y = np.ones((2, *images)), np.ones((2, 10))
    layer = "stage3_block1_attention_output_neuron"
    for call in (
        lambda: model.fit(x, y),
        lambda: model.train_on_batch(x, y),
        lambda: model(np.ones((2, 2, *images)), mask=np.ones((2, 2), bool)),
        lambda: model.export(str(tmp_path / "model.onnx"), "onnx"),
        lambda: rsnn.export_step(model, str(tmp_path / "step.onnx"), "onnx"),
        lambda: rsnn.unroll(model),
    ):
        with pytest.raises(
            ValueError, match=f"{layer}.*Build the network with shared_membrane=False"
        ):
            call()
    with pytest.raises(TypeError, match="shared_membrane"):
        rsnn.models.QKFormer(images, dims=64, shared_membrane=1)


def content_of(name):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(FOLDER / f"{name}.pth", map_location="cpu", weights_only=True)


def weights_in(content):
    """The key at the top level under which the weights are, and the weights."""
    place = next(
        (key for key in ("state_dict", "model", "best_net") if key in content), ""
    )
    return place, content[place] if place else content


def saved(path, content, **kwargs):
    torch.save(content, path, **kwargs)
    return path


@pytest.fixture(scope="module")
def sew():
    """The content of a checkpoint of SEW ResNet."""
    return content_of("sew_resnet18")


def weights_of(model):
    return {weight.path: np.array(weight) for weight in model.network.weights}


def assert_same_weights(model, expected):
    found = weights_of(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_computes(model, x, logits):
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, rtol=0, atol=1e-4)


@on_torch
def test_all_layouts_of_files_load_the_same_weights(sew, tmp_path):
    weights, expected = sew["model"], weights_of(Case("sew_resnet18").model())
    other = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    contents = {
        "timm": {
            "epoch": 1,
            "arch": "sew",
            "state_dict": other,
            "state_dict_ema": weights,
            "optimizer": {"state": {}},
        },
        "averages_left_out": {
            "state_dict": weights,
            "state_dict_ema": None,
            "args": argparse.Namespace(a=(1, None, "b")),
        },
        "net": {"net": weights, "acc": 0.5},
        "bare": weights,
        "wrapped": {f"module.{name}": tensor for name, tensor in weights.items()},
        "newer_containers": {
            name.replace(".module.", "."): tensor for name, tensor in weights.items()
        },
        "half": {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        },
    }
    files = [saved(tmp_path / name, content) for name, content in contents.items()]
    files += [FOLDER / "sew_resnet18_legacy.pth", str(FOLDER / "sew_resnet18.pth")]
    for file in files:
        model = from_checkpoint(file, input_shape=(32, 32, 3), verbose=False)
        assert_same_weights(model, expected)
        is_wrapped = getattr(file, "name", "") == "wrapped"
        assert model.checkpoint_report.prefixed == is_wrapped


@on_torch
def test_a_weight_that_is_there_with_and_without_a_container_is_an_error(sew, tmp_path):
    other = torch.zeros_like(sew["model"]["layer1.0.conv1.module.0.weight"])
    for prefix in ("", "module."):
        content = {
            f"{prefix}{name}": tensor
            for name, tensor in {
                **sew["model"],
                "layer1.0.conv1.0.weight": other,
            }.items()
        }
        with pytest.raises(
            ValueError,
            match=r"each weight once\. .*twice', .*: layer1\.0\.conv1\.0\.weight\. "
            r"Delete",
        ):
            from_checkpoint(saved(tmp_path / "twice", content))


@on_torch
def test_only_weights_of_the_file_take_memory(monkeypatch):
    def drawn(*args, **kwargs):
        raise AssertionError("Initial values would be drawn, to be replaced.")

    for initializer in (
        keras.initializers.VarianceScaling,
        keras.initializers.RandomUniform,
    ):
        monkeypatch.setattr(initializer, "__call__", drawn)
    assert len(weights_of(Case("sew_resnet18").model())) == len(
        Case("sew_resnet18").model().weights
    )


@on_torch
def test_the_report_says_what_became_of_each_weight_and_argument(sew, capsys):
    model = Case("sew_resnet18").model(timesteps=None, input_shape=None, verbose=True)
    report = model.checkpoint_report
    assert capsys.readouterr().out == f"{report}\n"
    assert (report.network, report.builder, report.place) == (
        "sew_resnet",
        "SEWResNet18",
        "model",
    )
    assert report.found == {
        "classes": 10,
        "width": 24 / 512,
        "stem": "imagenet",
        "channels": 3,
    }
    assert report.assumed.keys() == {"neuron", "timesteps", "input_shape"}
    assert report.assumed["timesteps"] == "2, args.T in the file"
    assert (model.timesteps, model.network.input_shape) == (2, (None, 224, 224, 3))
    assert {*report.renamed, *report.unused} == {
        name.replace(".module.", ".") for name in sew["model"]
    }
    assert (
        report.renamed["layer2.0.downsample.0.0.weight"]
        == "stage2_block1_shortcut_conv.kernel"
    )
    assert report.reshaped["layer2.0.downsample.0.0.weight"] == (
        (6, 3, 1, 1),
        (1, 1, 3, 6),
    )
    assert len(report.zeros) == 20
    for word in (
        "SEWResNet18",
        "args.T",
        "IF(reset='hard')",
        "num_batches_tracked",
        "stem_conv.bias",
    ):
        assert word in str(report)


@on_torch
def test_the_report_of_transformers_names_heads_unused_norms_and_shared_membranes():
    heads = {"heads": None}
    report = Case("qkformer_cifar").model(**heads).checkpoint_report
    assert report.assumed["heads"] == "8, the authors' for cifar"
    assert report.note in str(report)
    assert "membranes" in report.note
    report = Case("spikformer_cifar").model().checkpoint_report
    assert report.unused["block.1.norm2.bias"].startswith("a layer normalisation")
    assert report.note == ""
    report = Case("spikingresformer").model(heads=[1, 2, 3]).checkpoint_report
    assert (
        report.found["heads"],
        report.found["group_size"],
        report.found["stem"],
    ) == ((1, 2, 3), 8, "imagenet")
    # 32 channels are less than one head of the authors' 64.
    with pytest.raises(ValueError, match="heads=None, which stands for 0"):
        Case("maxformer_imagenet").model(**heads)


@on_torch
def test_weights_tell_editions_for_event_frames_and_parts_of_large_espikeformers():
    for name in ("qkformer_dvs", "maxformer_dvs"):
        report = Case(name).model(timesteps=None).checkpoint_report
        assert (
            report.found["edition"],
            report.found["blocks"],
            report.found["mlp_ratio"],
        ) == ("dvs", 2, 1)
        assert report.assumed["heads"] == "16, the authors' for dvs"
        assert report.assumed["timesteps"] == "2, args.T in the file"
    for name, has in (("espikeformer_large", False), ("espikeformer_large_base", True)):
        found = Case(name).model().checkpoint_report.found
        assert (found["shortcut_projection"], found["distilled"]) == (has, has)


@on_torch
@pytest.mark.parametrize(
    "first",
    [
        ("proj_conv", "proj_conv1", "proj_conv2", "rpe_conv"),
        ("proj_conv", "proj1_conv", "proj2_conv", "proj_res_conv"),
    ],
)
def test_maxformers_that_were_published_have_older_names(first, tmp_path):
    _, weights = weights_in(content_of("maxformer_imagenet"))
    older = {
        f"patch_embed1.embed{n}.embed_conv": f"patch_embed1.{name}"
        for n, name in enumerate(first, 1)
    }
    later = {
        "max_embed1": "proj3_conv",
        "embed1": "proj4_conv",
        "max_embed2": "proj_res_conv",
    }
    older |= {
        f"patch_embed{p}.{name}.embed_conv": f"patch_embed{p}.{old}"
        for p in (2, 3)
        for name, old in later.items()
    }
    older |= {
        name.replace("_conv", "_bn"): old.replace("conv", "bn")
        for name, old in older.items()
    }
    renamed = {
        f"{older.get(layer, layer)}.{part}": weights[f"{layer}.{part}"]
        for layer, _, part in (n.rpartition(".") for n in weights)
    }
    assert renamed.keys() != weights.keys()
    case = Case("maxformer_imagenet")
    model = case.model(path=saved(tmp_path / "old", renamed))
    assert_same_weights(model, weights_of(case.model()))


@on_torch
def test_convolutions_that_cannot_run_are_left_out_as_in_the_published_espikeformer(
    tmp_path,
):
    content = content_of("espikeformer_large_base")
    for name, tensor in content["model"].items():
        if "rep_conv.conv1.1." in name and tensor.ndim:
            content["model"][name] = torch.ones(24)
    report = (
        Case("espikeformer_large_base")
        .model(path=saved(tmp_path / "published.pth", content))
        .checkpoint_report
    )
    assert report.found["shortcut_projection"] is False
    assert "cannot run" in report.unused["block3.1.rep_conv.conv2.0.weight"]
    assert sum("cannot run" in reason for reason in report.unused.values()) == 24


@on_torch
def test_spikformers_for_event_frames_have_norms_and_positions_that_do_not_run(
    tmp_path,
):
    made = rsnn.models.Spikformer(
        (32, 32, 2), timesteps=2, dims=32, blocks=1, edition="dvs"
    )
    to_checkpoint(made, tmp_path / "written.pth")
    weights = torch.load(tmp_path / "written.pth")["model"]
    assert {"norm.weight", "norm.bias", "block.0.norm1.weight"} <= weights.keys()
    assert weights["pos_embed"].shape == (1, 4, 32)
    assert weights["block.0.mlp.fc1_conv.weight"].shape == (128, 32, 1)
    model = from_checkpoint(
        tmp_path / "written.pth", input_shape=(32, 32, 2), verbose=False
    )
    assert model.checkpoint_report.found["edition"] == "dvs"
    assert "does not add" in model.checkpoint_report.unused["pos_embed"]
    # Images may have two channels, too.
    of_images = rsnn.models.Spikformer(
        (32, 32, 2), timesteps=2, dims=32, blocks=1, edition="imagenet", heads=2
    )
    to_checkpoint(of_images, tmp_path / "written.pth")
    model = from_checkpoint(
        tmp_path / "written.pth", input_shape=(32, 32, 2), heads=2, verbose=False
    )
    assert model.checkpoint_report.found["edition"] == "imagenet"


@on_torch
def test_settings_in_a_file_tell_heads_and_refuse_what_is_another_network(
    sew, tmp_path
):
    content = content_of("spikformer_cifar")
    content["args"].num_heads = 2
    report = (
        Case("spikformer_cifar")
        .model(path=saved(tmp_path / "heads.pth", content), heads=None)
        .checkpoint_report
    )
    assert report.assumed["heads"] == "2, args.num_heads in the file"
    # Max-Former's program has this setting, too, but does not use it.
    content = content_of("maxformer_cifar")
    content["args"].num_heads = 2
    report = (
        Case("maxformer_cifar")
        .model(path=saved(tmp_path / "others.pth", content), heads=None)
        .checkpoint_report
    )
    assert report.assumed["heads"] == "8, the authors' for cifar"
    args = argparse.Namespace(T=2, connect_f="IAND")
    with pytest.raises(
        ValueError, match=r"sew_resnet with connect_f='ADD'\. .*args\.connect_f='IAND'"
    ):
        from_checkpoint(saved(tmp_path / "connected.pth", {**sew, "args": args}))
    content = content_of("sdt_v1")
    content["args"].dvs_mode = True
    with pytest.raises(
        ValueError, match=r"sdt_v1 with dvs_mode=False\. .*args\.dvs_mode=True"
    ):
        from_checkpoint(saved(tmp_path / "pooled.pth", content))


@on_torch
def test_the_second_classifier_of_a_metaspikeformer_reads_the_spikes_of_the_first(
    tmp_path,
):
    case, content, random = (
        Case("sdt_v2"),
        content_of("sdt_v2"),
        np.random.default_rng(0),
    )
    second = {
        f"head_kd.{name}": torch.tensor(random.normal(size=shape))
        for name, shape in (("weight", (10, 12)), ("bias", 10))
    }
    content["model"] |= second
    model = case.model(path=saved(tmp_path / "distilled.pth", content))
    assert model.checkpoint_report.found["distilled"] is True
    rates = rsnn.analysis.raster(model, case.x, "neuron", neurons=12).spikes.mean(
        axis=1
    )
    expected = (
        case.logits
        + rates @ second["head_kd.weight"].numpy().T
        + second["head_kd.bias"].numpy()
    ) / 2
    assert_computes(model, case.x, expected)


@on_torch
def test_unused_weights_tell_the_heads_of_a_spike_driven_transformer_and_its_halving(
    tmp_path,
):
    case, content = Case("sdt_v1"), content_of("sdt_v1")
    report = case.model().checkpoint_report
    assert (report.network, report.found["heads"]) == ("sdt_v1", 4)
    assert "tells the heads" in report.unused["block.1.attn.talking_heads.weight"]
    assert report.assumed["pooling_stat"].startswith("'1111' for images of 128 x 128")
    content["args"].pooling_stat = "1010"
    path = saved(tmp_path / "settings.pth", content)
    model = case.model(path=path, heads=None)
    assert (
        model.checkpoint_report.assumed["pooling_stat"]
        == "'1010', args.pooling_stat in the file"
    )
    assert model.network.get_layer("block1_attention_neuron").output.shape == (
        None,
        1,
        4,
        4,
    )
    np.testing.assert_allclose(
        case.model(path=path, pooling_stat="0011").predict(case.x, verbose=0),
        case.logits,
        atol=1e-4,
    )
    # Settings are data of others.
    content["args"].pooling_stat = "11111"
    assert "args" not in str(
        case.model(path=saved(path, content)).checkpoint_report.assumed["pooling_stat"]
    )
    with pytest.raises(ValueError, match="`heads` must be that of the weights, 4"):
        case.model(heads=8)


@on_torch
def test_neurons_given_to_espikeformer_count_before_the_classifier_as_its_own_do():
    case = Case("espikeformer")
    model = case.model(
        neuron=lambda: rsnn.layers.ILIF(levels=4, decay=0.0, normalize=True)
    )
    assert_computes(model, case.x, case.logits)


@on_torch
def test_a_model_of_the_user_is_filled_and_arguments_replace_what_weights_do_not_tell(
    sew,
):
    case = Case("ratebp_vgg11")
    own = rsnn.models.VGG11((16, 16, 3), timesteps=2, width=24 / 512, gradient="bptt")
    assert from_checkpoint(case.path, own, verbose=False) is own
    assert_computes(own, case.x, case.logits)
    inputs, own = (
        keras.Input((16, 16, 3)),
        rsnn.models.VGG11((16, 16, 3), width=24 / 512),
    )
    prepared = rsnn.SpikingModel(
        keras.Model(inputs, own.network(keras.layers.Rescaling(2.0)(inputs))),
        timesteps=2,
    )
    from_checkpoint(case.path, prepared, verbose=False)
    np.testing.assert_allclose(
        prepared.predict(case.x / 2, verbose=0), case.logits, rtol=0, atol=1e-4
    )
    model = case.model(
        timesteps=5,
        neuron=lambda: LIF(decay=0.7),
        width=0.047,
        gradient="bptt",
        include_top=False,
    )
    assert (model.timesteps, model.network.get_layer("block1_neuron1").cell.decay) == (
        5,
        0.7,
    )
    assert model.network.output_shape == (None, 1, 1, 24)
    with pytest.raises(TypeError, match="`network` is a model"):
        from_checkpoint(case.path, own, timesteps=3)
    smaller = rsnn.models.VGG11((16, 16, 3), width=12 / 512)
    before = smaller.network.get_weights()
    with pytest.raises(ValueError, match=r"feature.0.weight of shape \(3, 3, 3, 3\)"):
        from_checkpoint(case.path, smaller)
    assert all(
        np.array_equal(*pair)
        for pair in zip(before, smaller.network.get_weights(), strict=True)
    )


@on_torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.25}, "`width` must be that of the weights, 0.046875"),
        ({"stem": "cifar"}, "`stem` must be that of the weights, 'imagenet'"),
        ({"input_shape": (32, 32, 1)}, "`input_shape` must have 3 channels"),
        (
            {"network": "rate_backpropagation"},
            "`network` must be sew_resnet, which the weights fit",
        ),
        ({"network": "resnet"}, "`network` must be"),
        (
            {"network": torch.nn.Linear(1, 1)},
            "`network` must be the name of an architecture or a SpikingModel",
        ),
        ({"weights": "digits"}, "`weights` are those of the file"),
        (
            {"pooling": 1},
            "SEWResNet18 got an unexpected keyword argument 'pooling'. Its arguments "
            "are input_shape, classes",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments_that_the_file_contradicts_are_errors(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        from_checkpoint(FOLDER / "sew_resnet18.pth", verbose=False, **arguments)


def changed(weights, **changes):
    """Weights with some replaced, or left out for `None`."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return {
        name: value
        for name, value in {**weights, **changes}.items()
        if value is not None
    }


@on_torch
def test_weights_that_are_not_those_of_a_network_are_named(sew, tmp_path):
    weights = {
        name.replace(".module.", "."): tensor for name, tensor in sew["model"].items()
    }
    broken = {
        "fc.bias": ({"fc__bias": None}, "lacks bias of classifier"),
        "fc": ({"fc__weight": None, "fc__bias": None}, "lacks 'fc.weight'"),
        "shape": ({"bn1__bias": torch.zeros(5)}, r"bn1.bias of shape \(5,\)"),
        "kernel": (
            {"layer1__0__conv1__0__weight": torch.zeros(3, 3)},
            r"layer1.0.conv1.0.weight of shape \(3, 3\)",
        ),
        "axes": (
            {"layer1__0__conv1__0__weight": torch.zeros(1, 3, 3, 3, 3)},
            "layer1.0.conv1.0.weight of shape",
        ),
        "scalar": ({"fc__weight": torch.tensor(1.0)}, "lacks"),
        "integer": (
            {"bn1__bias": torch.zeros(3, dtype=torch.int64)},
            "bn1.bias of shape",
        ),
        "extra": ({"layer1__0__gate": torch.zeros(3)}, "no place for layer1.0.gate"),
        "bias": ({"layer1__0__conv1__0__bias": torch.zeros(3)}, None),
        "blocks": (
            {"layer1__2__conv1__0__weight": torch.zeros(3, 3, 3, 3)},
            "stages of 3, 2, 2, 2 blocks",
        ),
        "nan": (
            {"fc__bias": torch.full((10,), torch.nan)},
            "NaN or infinite in fc.bias",
        ),
        "negative": (
            {"bn1__running_var": torch.full((3,), -1.0)},
            "variances below 0 in bn1.running_var",
        ),
        "infinite": (
            {"bn1__running_var": torch.full((3,), torch.inf)},
            "NaN or infinite in bn1.running_var",
        ),
    }
    for name, (changes, message) in broken.items():
        file = saved(tmp_path / name, changed(weights, **changes))
        if message is None:
            # A bias where the authors have none is a bias of ours.
            assert (
                len(from_checkpoint(file, verbose=False).checkpoint_report.zeros) == 19
            )
            continue
        with pytest.raises(ValueError, match=message) as error:
            from_checkpoint(file)
        assert "\n" not in str(error.value)
        assert repr(str(file)) in str(error.value)


@on_torch
@pytest.mark.parametrize("name", CASES)
def test_files_are_written_as_the_authors_programs_write_them(name, tmp_path):
    to_checkpoint(Case(name).model(), tmp_path / "written.pth")
    (place, expected), (written_to, found) = (
        weights_in(content_of(name)),
        weights_in(torch.load(tmp_path / "written.pth")),
    )
    assert written_to == place
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (found[key].shape, found[key].dtype) == (tensor.shape, tensor.dtype)
        # What their networks do not run is written anew.
        if not any(
            part in key
            for part in (
                "num_batches_tracked",
                "block.0.norm",
                "block.1.norm",
                "talking_heads",
            )
        ):
            assert torch.equal(found[key], tensor), key


@on_torch
def test_weights_made_here_come_back_bit_for_bit_even_from_behind_preprocessing(
    tmp_path,
):
    models, images, narrow = rsnn.models, (16, 16, 3), {"width": 1 / 64}
    path = tmp_path / "written.pth"
    tokens = {"dims": 32, "blocks": 3, "heads": 2}
    large = {"dims": (4, 8, 16), "blocks": 1, "heads": 2, "distilled": True}
    resformer = {"dims": (4, 8, 8), "blocks": (2, 1, 2), "heads": (1, 2, 2)}
    for network, heads in (
        (models.MaxFormer(images, timesteps=2, **tokens), 2),
        (models.SEWResNet50(images, timesteps=2, **narrow), None),
        (models.ESpikeFormerLarge(images, **large), 2),
        (models.SpikingResformer(images, group_size=4, **resformer), None),
        (models.MSResNet104((32, 32, 3), stem="imagenet", **narrow), None),
    ):
        inputs = keras.Input(network.network.input_shape[1:])
        outputs = network.network(keras.layers.Rescaling(1 / 255)(inputs))
        prepared = keras.Model(inputs, outputs)
        to_checkpoint(rsnn.SpikingModel(prepared, network.timesteps), path)
        options = {} if heads is None else {"heads": heads}
        model = from_checkpoint(
            path, input_shape=inputs.shape[1:], timesteps=1, verbose=False, **options
        )
        assert model.name == network.name
        assert_same_weights(model, weights_of(network))


@on_torch
def test_sew_resnets_with_if_neurons_are_written_without_biases_and_compute_the_same(
    tmp_path,
):
    case = Case("sew_resnet18")
    model = case.model()
    random = np.random.default_rng(0)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.bias.assign(random.normal(size=layer.bias.shape))
    to_checkpoint(model, tmp_path / "written.pth")
    assert (
        torch.load(tmp_path / "written.pth")["model"].keys()
        == content_of("sew_resnet18")["model"].keys()
    )
    written = case.model(path=tmp_path / "written.pth")
    np.testing.assert_allclose(
        written.predict(case.x, verbose=0),
        model.predict(case.x, verbose=0),
        rtol=0,
        atol=1e-4,
    )


@on_torch
def test_networks_of_no_program_are_not_written(tmp_path):
    images, path = (16, 16, 3), tmp_path / "written.pth"
    own = keras.Sequential(
        [keras.Input(images), keras.layers.Conv2D(2, 3), LIF(), keras.layers.Flatten()]
    )
    for model, message in (
        (rsnn.SpikingModel(own, 2), "no name for conv2d"),
        (
            rsnn.models.ResNet18(images, width=1 / 64, include_top=False),
            "it lacks 'classifier.0.weight'",
        ),
        (
            rsnn.models.ResNet18(images, width=1 / 32, normalization="weight"),
            "its layers have other weights",
        ),
        (
            rsnn.models.VGG11(images, width=1 / 64, neuron=rsnn.layers.ParametricLIF),
            "no name for block1_neuron1",
        ),
    ):
        with pytest.raises(
            ValueError, match=f"`model` must be a network of one of .*{message}"
        ):
            to_checkpoint(model, path)
    with pytest.raises(TypeError, match="`model` must be"):
        to_checkpoint(own, path)
    with pytest.raises(
        FileNotFoundError, match="`path` must be a file in a folder that exists"
    ):
        to_checkpoint(
            rsnn.models.VGG11(images, width=1 / 64), tmp_path / "absent" / "written.pth"
        )
    assert not list(tmp_path.iterdir())
