"""Checkpoints of the authors of networks compute here what they compute in the authors'
programs."""

import argparse
import functools
import re

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, assert_close, saved_and_loaded, to_numpy
from published_cases import FOLDER, Case, counted

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF
from keras_ratesnn.models import from_checkpoint, to_checkpoint

BY_BACKEND = ["sew_resnet18", "qkformer_imagenet", "espikeformer_large"]
ON_TORCH = """ratebp_resnet19 ratebp_vggsnn spikformer_cifar maxformer_imagenet
sdt_v1 sdt_v2 spikingresformer ms_resnet18 qkformer_dvs maxformer_dvs
espikeformer_large_base"""
"""With those above one of each family; elsewhere, and of all others, they are slow
tests."""
OTHERS = """ratebp_resnet18 ratebp_vgg11 ratebp_sew_resnet18 ratebp_preact_resnet18
spikformer_imagenet qkformer_cifar maxformer_cifar espikeformer"""
NAMES = [*BY_BACKEND, *ON_TORCH.split(), *OTHERS.split()]
QUICK = NAMES[: -len(OTHERS.split())] if BACKEND == "torch" else BY_BACKEND
CASES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in NAMES
]

on_torch = pytest.mark.runs_once


@pytest.mark.on_each_backend
@pytest.mark.parametrize("name", CASES)
def test_logits_and_spikes_of_all_layers_steps_and_samples_are_the_authors(name):
    case = Case(name)
    model = case.model()
    assert_computes(model, case.x, case.logits)
    expected, counts = case.counts(), counted(model, case.x)
    expected.pop(None, None)
    assert counts.keys() == expected.keys()
    for layer, spikes in expected.items():
        np.testing.assert_array_equal(counts[layer], spikes, err_msg=layer)


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
    sizes = [neurons.size * len(case.x) for neurons in rates.by_neuron]
    counts = np.rint(np.array(rates.by_step) * np.array(sizes)[:, None])
    authors = case.counts(batch=True)
    for layer, steps in zip(rates.layers, counts, strict=True):
        np.testing.assert_array_equal(steps, authors[layer].sum(axis=0), err_msg=layer)
    # Also step by step.
    steps = [to_numpy(model.step(case.x)) for _ in range(model.timesteps)]
    np.testing.assert_allclose(np.mean(steps, axis=0), expected, rtol=0, atol=1e-4)


def test_a_shared_membrane_is_saved_and_refuses_what_takes_samples_apart(tmp_path):
    images, options = (16, 16, 3), {"dims": 64, "blocks": 3}
    built = rsnn.models.QKFormer(images, timesteps=2, shared_membrane=True, **options)
    model = saved_and_loaded(built)
    model.compile("sgd", "mse")
    x, y = np.ones((2, *images)), np.ones((2, 10))
    frames, mask = np.ones((2, 2, *images)), np.ones((2, 2), bool)
    path = str(tmp_path / "model.onnx")
    layer = "stage3_block1_attention_output_neuron"
    message = f"{layer}.*Build the network with shared_membrane=False"
    for call in (
        lambda: model.fit(x, y),
        lambda: model.train_on_batch(x, y),
        lambda: model(frames, mask=mask),
        lambda: model.export(path, "onnx"),
        lambda: rsnn.export_step(model, path, "onnx"),
        lambda: rsnn.unroll(model),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="shared_membrane"):
        rsnn.models.QKFormer(images, shared_membrane=1, **options)


def content_of(name):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(FOLDER / f"{name}.pth", map_location="cpu", weights_only=True)


def weights_in(content):
    """The key at the top level under which the weights are, and the weights."""
    for place in ("state_dict", "model", "best_net"):
        if place in content:
            return place, content[place]
    return "", content


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
    weights = weights_of(model)
    assert weights.keys() == expected.keys()
    assert_close(weights, expected, rtol=0)


def assert_computes(model, x, logits):
    np.testing.assert_allclose(model.predict(x, verbose=0), logits, rtol=0, atol=1e-4)


@on_torch
def test_all_layouts_of_files_load_the_same_weights(sew, tmp_path):
    weights, expected = sew["model"], weights_of(Case("sew_resnet18").model())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    settings = argparse.Namespace(a=(1, None, "b"))
    contents = {
        "timm": {"epoch": 1, "state_dict": zeros, "state_dict_ema": weights},
        "no_averages": {
            "state_dict": weights,
            "state_dict_ema": None,
            "args": settings,
        },
        "net": {"net": weights, "acc": 0.5},
        "bare": weights,
        "wrapped": {f"module.{name}": tensor for name, tensor in weights.items()},
        "newer_containers": without_containers(weights),
        "double": {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        },
    }
    files = [saved(tmp_path / name, content) for name, content in contents.items()]
    files += [FOLDER / "sew_resnet18_legacy.pth", str(FOLDER / "sew_resnet18.pth")]
    for file in files:
        model = from_checkpoint(file, input_shape=(32, 32, 3), verbose=False)
        assert_same_weights(model, expected)
        is_wrapped = file == tmp_path / "wrapped"
        assert model.checkpoint_report.prefixed == is_wrapped


@on_torch
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_weight_that_is_there_with_and_without_a_container_is_an_error(
    prefix, sew, tmp_path
):
    weights = {**sew["model"], "layer1.0.conv1.0.weight": torch.zeros(3, 3, 3, 3)}
    content = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    message = r"each weight once\. .*twice', .*: layer1\.0\.conv1\.0\.weight\. Delete"
    with pytest.raises(ValueError, match=message):
        from_checkpoint(saved(tmp_path / "twice", content))


@on_torch
def test_only_weights_of_the_file_take_memory(monkeypatch):
    def drawn(*args, **kwargs):
        raise AssertionError("Initial values would be drawn, to be replaced.")

    initializers = keras.initializers
    for initializer in (initializers.VarianceScaling, initializers.RandomUniform):
        monkeypatch.setattr(initializer, "__call__", drawn)
    model = Case("sew_resnet18").model()
    assert len(weights_of(model)) == len(model.weights)


@on_torch
def test_the_report_says_what_became_of_each_weight_and_argument(sew, capsys):
    model = Case("sew_resnet18").model(timesteps=None, input_shape=None, verbose=True)
    report = model.checkpoint_report
    assert capsys.readouterr().out == f"{report}\n"
    told = report.network, report.builder, report.place
    assert told == ("sew_resnet", "SEWResNet18", "model")
    width = {"classes": 10, "width": 24 / 512}
    assert report.found == {**width, "stem": "imagenet", "channels": 3}
    assert report.assumed.keys() == {"neuron", "timesteps", "input_shape"}
    assert report.assumed["timesteps"] == "2, args.T in the file"
    assert (model.timesteps, model.network.input_shape) == (2, (None, 224, 224, 3))
    assert {*report.renamed, *report.unused} == {*without_containers(sew["model"])}
    name = "layer2.0.downsample.0.0.weight"
    assert report.renamed[name] == "stage2_block1_shortcut_conv.kernel"
    assert report.reshaped[name] == ((6, 3, 1, 1), (1, 1, 3, 6))
    assert len(report.zeros) == 20
    words = "SEWResNet18", "args.T", "IF(reset='hard')", "num_batches_tracked"
    for word in (*words, "stem_conv.bias"):
        assert word in str(report)


@on_torch
def test_the_report_of_transformers_names_heads_unused_norms_and_shared_membranes():
    report = Case("qkformer_cifar").report(heads=None)
    assert report.assumed["heads"] == "8, the authors' for cifar"
    assert report.note in str(report)
    assert "membranes" in report.note
    report = Case("spikformer_cifar").report()
    assert report.unused["block.1.norm2.bias"].startswith("a layer normalisation")
    assert report.note == ""
    told = Case("spikingresformer").report(heads=[1, 2, 3]).found
    expected = {"heads": (1, 2, 3), "group_size": 8, "stem": "imagenet"}
    assert expected.items() <= told.items()
    # 32 channels are less than one head of the authors' 64.
    with pytest.raises(ValueError, match="heads=None, which stands for 0"):
        Case("maxformer_imagenet").model(heads=None)


@on_torch
def test_weights_tell_editions_for_event_frames_and_parts_of_large_espikeformers():
    edition = {"edition": "dvs", "blocks": 2, "mlp_ratio": 1}
    for name in ("qkformer_dvs", "maxformer_dvs"):
        report = Case(name).report(timesteps=None)
        assert edition.items() <= report.found.items()
        assert report.assumed["heads"] == "16, the authors' for dvs"
        assert report.assumed["timesteps"] == "2, args.T in the file"
    for name, has in (("espikeformer_large", False), ("espikeformer_large_base", True)):
        told = Case(name).report().found
        assert (told["shortcut_projection"], told["distilled"]) == (has, has)


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
    path = saved(tmp_path / "published.pth", content)
    report = Case("espikeformer_large_base").report(path=path)
    assert report.found["shortcut_projection"] is False
    assert "cannot run" in report.unused["block3.1.rep_conv.conv2.0.weight"]
    assert sum("cannot run" in reason for reason in report.unused.values()) == 24


@on_torch
def test_spikformers_for_event_frames_have_norms_and_positions_that_do_not_run(
    tmp_path,
):
    def written(**kwargs):
        model = rsnn.models.Spikformer(shape, timesteps=2, dims=32, blocks=1, **kwargs)
        to_checkpoint(model, path)
        heads = kwargs.get("heads")
        return from_checkpoint(path, input_shape=shape, heads=heads, verbose=False)

    shape, path = (32, 32, 2), tmp_path / "written.pth"
    report = written(edition="dvs").checkpoint_report
    weights = torch.load(path)["model"]
    assert {"norm.weight", "norm.bias", "block.0.norm1.weight"} <= weights.keys()
    assert weights["pos_embed"].shape == (1, 4, 32)
    assert weights["block.0.mlp.fc1_conv.weight"].shape == (128, 32, 1)
    assert report.found["edition"] == "dvs"
    assert "does not add" in report.unused["pos_embed"]
    # Images may have two channels, too.
    report = written(edition="imagenet", heads=2).checkpoint_report
    assert report.found["edition"] == "imagenet"


@on_torch
@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("spikformer_cifar", "2, args.num_heads in the file"),
        # Max-Former's program has this setting, too, but does not use it.
        ("maxformer_cifar", "8, the authors' for cifar"),
    ],
)
def test_settings_in_a_file_tell_heads(name, heads, tmp_path):
    content = content_of(name)
    content["args"].num_heads = 2
    path = saved(tmp_path / "heads.pth", content)
    assert Case(name).report(path=path, heads=None).assumed["heads"] == heads


@on_torch
@pytest.mark.parametrize(
    ("name", "setting", "value", "needed"),
    [
        ("sew_resnet18", "connect_f", "IAND", "sew_resnet with connect_f='ADD'"),
        ("sdt_v1", "dvs_mode", True, "sdt_v1 with dvs_mode=False"),
    ],
)
def test_settings_in_a_file_refuse_what_is_another_network(
    name, setting, value, needed, tmp_path
):
    content = content_of(name)
    setattr(content["args"], setting, value)
    message = rf"{needed}\. .*args\.{setting}={value!r}"
    with pytest.raises(ValueError, match=message):
        from_checkpoint(saved(tmp_path / "settings.pth", content))


@on_torch
def test_the_second_classifier_of_a_metaspikeformer_reads_the_spikes_of_the_first(
    tmp_path,
):
    case, content = Case("sdt_v2"), content_of("sdt_v2")
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(10, 12)), random.normal(size=10)
    content["model"]["head_kd.weight"] = torch.tensor(weight)
    content["model"]["head_kd.bias"] = torch.tensor(bias)
    model = case.model(path=saved(tmp_path / "distilled.pth", content))
    assert model.checkpoint_report.found["distilled"] is True
    spikes = rsnn.analysis.raster(model, case.x, "neuron", neurons=12).spikes
    second = spikes.mean(axis=1) @ weight.T + bias
    assert_computes(model, case.x, (case.logits + second) / 2)


@on_torch
def test_unused_weights_tell_the_heads_of_a_spike_driven_transformer_and_its_halving(
    tmp_path,
):
    case, content = Case("sdt_v1"), content_of("sdt_v1")
    report = case.report()
    assert (report.network, report.found["heads"]) == ("sdt_v1", 4)
    assert "tells the heads" in report.unused["block.1.attn.talking_heads.weight"]
    assert report.assumed["pooling_stat"].startswith("'1111' for images of 128 x 128")
    content["args"].pooling_stat = "1010"
    path = saved(tmp_path / "settings.pth", content)
    model = case.model(path=path, heads=None)
    told = model.checkpoint_report.assumed["pooling_stat"]
    assert told == "'1010', args.pooling_stat in the file"
    attention = model.network.get_layer("block1_attention_neuron")
    assert attention.output.shape == (None, 1, 4, 4)
    assert_computes(case.model(path=path, pooling_stat="0011"), case.x, case.logits)
    # Settings are data of others.
    content["args"].pooling_stat = "11111"
    told = case.report(path=saved(path, content)).assumed["pooling_stat"]
    assert "args" not in told
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
def test_a_model_of_the_user_is_filled():
    def built(width=24 / 512, **kwargs):
        return rsnn.models.VGG11((16, 16, 3), timesteps=2, width=width, **kwargs)

    case, own = Case("ratebp_vgg11"), built(gradient="bptt")
    assert from_checkpoint(case.path, own, verbose=False) is own
    assert_computes(own, case.x, case.logits)
    inputs = keras.Input((16, 16, 3))
    outputs = built().network(keras.layers.Rescaling(2.0)(inputs))
    prepared = rsnn.SpikingModel(keras.Model(inputs, outputs), timesteps=2)
    from_checkpoint(case.path, prepared, verbose=False)
    assert_computes(prepared, case.x / 2, case.logits)
    with pytest.raises(TypeError, match="`network` is a model"):
        from_checkpoint(case.path, own, timesteps=3)
    smaller = built(width=12 / 512)
    before = smaller.network.get_weights()
    with pytest.raises(ValueError, match=r"feature.0.weight of shape \(3, 3, 3, 3\)"):
        from_checkpoint(case.path, smaller)
    assert_close(smaller.network.get_weights(), before, rtol=0)


@on_torch
def test_arguments_replace_what_weights_do_not_tell():
    settings = {"timesteps": 5, "width": 0.047, "gradient": "bptt"}
    neuron = functools.partial(LIF, decay=0.7)
    case = Case("ratebp_vgg11")
    model = case.model(neuron=neuron, include_top=False, **settings)
    assert model.timesteps == 5
    assert model.network.get_layer("block1_neuron1").decay == 0.7
    assert model.network.output_shape == (None, 1, 1, 24)


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


def without_containers(weights):
    return {name.replace(".module.", "."): tensor for name, tensor in weights.items()}


KERNEL, VARIANCE = "layer1.0.conv1.0.weight", "bn1.running_var"
BROKEN = [
    ({"fc.bias": None}, "lacks bias of classifier"),
    ({"fc.weight": None, "fc.bias": None}, "lacks 'fc.weight'"),
    ({"fc.weight": torch.tensor(1.0)}, "lacks"),
    ({"bn1.bias": torch.zeros(5)}, r"bn1.bias of shape \(5,\)"),
    ({"bn1.bias": torch.zeros(3, dtype=torch.int64)}, "bn1.bias of shape"),
    ({KERNEL: torch.zeros(3, 3)}, rf"{KERNEL} of shape \(3, 3\)"),
    ({"layer1.0.gate": torch.zeros(3)}, "no place for layer1.0.gate"),
    ({"layer1.2.conv1.0.weight": torch.zeros(3, 3, 3, 3)}, "stages of 3, 2, 2, 2 b"),
    ({"fc.bias": torch.full((10,), torch.nan)}, "NaN or infinite in fc.bias"),
    ({VARIANCE: torch.full((3,), torch.inf)}, f"NaN or infinite in {VARIANCE}"),
    ({VARIANCE: torch.full((3,), -1.0)}, f"variances below 0 in {VARIANCE}"),
]


@on_torch
@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_weights_that_are_not_those_of_a_network_are_named(
    changes, message, sew, tmp_path
):
    """Replaced, or left out for `None`."""
    weights = {**without_containers(sew["model"]), **changes}
    left = {name: tensor for name, tensor in weights.items() if tensor is not None}
    file = saved(tmp_path / "broken.pth", left)
    with pytest.raises(ValueError, match=message) as error:
        from_checkpoint(file)
    assert "\n" not in str(error.value)
    assert repr(str(file)) in str(error.value)


@on_torch
def test_a_bias_where_the_authors_have_none_is_a_bias_of_ours(sew, tmp_path):
    weights = without_containers(sew["model"])
    weights["layer1.0.conv1.0.bias"] = torch.zeros(3)
    model = from_checkpoint(saved(tmp_path / "bias", weights), verbose=False)
    assert len(model.checkpoint_report.zeros) == 19


@on_torch
@pytest.mark.parametrize("name", CASES)
def test_files_are_written_as_the_authors_programs_write_them(name, tmp_path):
    path = tmp_path / "written.pth"
    to_checkpoint(Case(name).model(), path)
    place, expected = weights_in(content_of(name))
    written_to, weights = weights_in(torch.load(path))
    assert written_to == place
    assert weights.keys() == expected.keys()
    # What their networks do not run is written anew.
    unused = re.compile(r"num_batches_tracked|block\.[01]\.norm|talking_heads")
    for key, tensor in expected.items():
        assert (weights[key].shape, weights[key].dtype) == (tensor.shape, tensor.dtype)
        assert unused.search(key) or torch.equal(weights[key], tensor), key


@on_torch
def test_weights_made_here_come_back_bit_for_bit_even_from_behind_preprocessing(
    tmp_path,
):
    models, images, narrow = rsnn.models, (16, 16, 3), {"width": 1 / 64}
    path = tmp_path / "written.pth"
    resformer = {"dims": (4, 8, 8), "blocks": (2, 1, 2), "heads": (1, 2, 2)}
    for network in (
        models.SEWResNet50(images, timesteps=2, **narrow),
        models.SpikingResformer(images, group_size=4, **resformer),
        models.MSResNet104((32, 32, 3), stem="imagenet", **narrow),
    ):
        inputs = keras.Input(network.network.input_shape[1:])
        outputs = network.network(keras.layers.Rescaling(1 / 255)(inputs))
        prepared = keras.Model(inputs, outputs)
        to_checkpoint(rsnn.SpikingModel(prepared, network.timesteps), path)
        shape = inputs.shape[1:]
        model = from_checkpoint(path, input_shape=shape, timesteps=1, verbose=False)
        assert model.name == network.name
        assert_same_weights(model, weights_of(network))


@on_torch
def test_sew_resnets_with_if_neurons_are_written_without_biases_and_compute_the_same(
    tmp_path,
):
    case, path = Case("sew_resnet18"), tmp_path / "written.pth"
    model = case.model()
    random = np.random.default_rng(0)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.bias.assign(random.normal(size=layer.bias.shape))
    to_checkpoint(model, path)
    names = content_of("sew_resnet18")["model"].keys()
    assert torch.load(path)["model"].keys() == names
    assert_computes(case.model(path=path), case.x, model.predict(case.x, verbose=0))


@on_torch
def test_networks_of_no_program_are_not_written(tmp_path):
    models, images, narrow = rsnn.models, (16, 16, 3), {"width": 1 / 32}
    path, learning = tmp_path / "written.pth", rsnn.layers.ParametricLIF
    parts = keras.layers.Conv2D(2, 3), LIF(), keras.layers.Flatten()
    own = keras.Sequential([keras.Input(images), *parts])
    for model, message in (
        (rsnn.SpikingModel(own, 2), "no name for conv2d"),
        (
            models.ResNet18(images, include_top=False, **narrow),
            "lacks 'classifier.0.wei",
        ),
        (
            models.ResNet18(images, normalization="weight", **narrow),
            "have other weights",
        ),
        (models.VGG11(images, neuron=learning, **narrow), "no name for block1_neuron1"),
    ):
        expected = f"`model` must be a network of one of .*{message}"
        with pytest.raises(ValueError, match=expected):
            to_checkpoint(model, path)
    with pytest.raises(TypeError, match="`model` must be"):
        to_checkpoint(own, path)
    absent = tmp_path / "absent" / "written.pth"
    message = "`path` must be a file in a folder that exists"
    with pytest.raises(FileNotFoundError, match=message):
        to_checkpoint(models.VGG11(images, **narrow), absent)
    assert not list(tmp_path.iterdir())
