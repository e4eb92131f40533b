"""Checkpoints of the authors of networks compute here what they compute in the authors'
programs."""

import argparse
import functools
import re

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, assert_close, chain, saved_and_loaded, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal
from published_cases import FOLDER, Case, counted

import keras_ratesnn as rsnn
from keras_ratesnn.layers import ILIF, LIF, ParametricLIF
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
        assert_array_equal(counts[layer], spikes, err_msg=layer)


def test_qkformer_with_a_shared_membrane_computes_what_its_program_does_with_a_batch():
    case = Case("qkformer_cifar")
    model = case.model(shared_membrane=True)
    assert "shared_membrane" not in model.checkpoint_report.assumed
    expected = case.arrays["logits"]
    assert_computes(model, case.x, expected)
    rates = rsnn.analysis.firing_rates(model, case.x)
    sizes = [neurons.size * len(case.x) for neurons in rates.by_neuron]
    counts = np.rint(np.array(rates.by_step) * np.array(sizes)[:, None])
    authors = case.counts(batch=True)
    for layer, steps in zip(rates.layers, counts, strict=True):
        assert_array_equal(steps, authors[layer].sum(axis=0), err_msg=layer)
    # Also step by step.
    steps = [to_numpy(model.step(case.x)) for _ in range(model.timesteps)]
    assert_allclose(np.mean(steps, axis=0), expected, rtol=0, atol=1e-4)


def test_a_shared_membrane_is_saved_and_refuses_what_takes_samples_apart(tmp_path):
    images, options = (16, 16, 3), {"dims": 64, "blocks": 3, "shared_membrane": True}
    model = saved_and_loaded(rsnn.models.QKFormer(images, timesteps=2, **options))
    model.compile("sgd", "mse")
    x, y = np.ones((2, *images)), np.ones((2, 10))
    frames, mask = np.ones((2, 2, *images)), np.ones((2, 2), bool)
    path = str(tmp_path / "model.onnx")
    layer = "stage3_block1_attention_output_neuron"
    message = f"{layer}.*Build the network with shared_membrane=False"
    for call in (
        lambda: model.fit(x, y),
        lambda: model(frames, mask=mask),
        lambda: model.export(path, "onnx"),
        lambda: rsnn.deploy.export_step(model, path, "onnx"),
        lambda: rsnn.deploy.unroll(model),
    ):
        with pytest.raises(ValueError, match=message):
            call()


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
    assert_allclose(model.predict(x, verbose=0), logits, rtol=0, atol=1e-4)


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
        "bare": {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in without_containers(weights).items()
        },
        "wrapped": {f"module.{name}": tensor for name, tensor in weights.items()},
    }
    files = [saved(tmp_path / name, content) for name, content in contents.items()]
    files += [FOLDER / "sew_resnet18_legacy.pth", str(FOLDER / "sew_resnet18.pth")]
    for file in files:
        model = from_checkpoint(file, input_shape=(32, 32, 3), verbose=False)
        assert_same_weights(model, expected)
        is_wrapped = file == tmp_path / "wrapped"
        assert model.checkpoint_report.prefixed == is_wrapped


@on_torch
def test_a_weight_that_is_there_with_and_without_a_container_is_an_error(sew, tmp_path):
    weights = {**sew["model"], "layer1.0.conv1.0.weight": torch.zeros(3, 3, 3, 3)}
    content = {f"module.{name}": tensor for name, tensor in weights.items()}
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
    for word in ("args.T", "IF(reset='hard')", "num_batches_tracked", "stem_conv.bias"):
        assert word in str(report)


DVS = {"edition": "dvs", "blocks": 2, "mlp_ratio": 1}
RESFORMER = {"heads": (1, 2, 3), "group_size": 8, "stem": "imagenet"}
WHOLE = {"shortcut_projection": True, "distilled": True}
PARTS = {"shortcut_projection": False, "distilled": False}


@on_torch
@pytest.mark.parametrize(
    ("name", "arguments", "found", "assumed"),
    [
        ("qkformer_dvs", {"timesteps": None}, DVS, "16, the authors' for dvs"),
        ("qkformer_cifar", {"heads": None}, {}, "8, the authors' for cifar"),
        ("spikingresformer", {"heads": [1, 2, 3]}, RESFORMER, None),
        ("espikeformer_large", {}, PARTS, None),
        ("espikeformer_large_base", {}, WHOLE, None),
    ],
)
def test_the_report_of_transformers_has_what_weights_tell_and_what_is_assumed(
    name, arguments, found, assumed
):
    report = Case(name).report(**arguments)
    assert found.items() <= report.found.items()
    assert report.assumed.get("heads") == assumed
    if "timesteps" in arguments:
        assert report.assumed["timesteps"] == "2, args.T in the file"
    assert ("membranes" in report.note) == ("qkformer" in name)
    assert report.note in str(report)


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
    for patches in ("patch_embed2", "patch_embed3"):
        older[f"{patches}.max_embed1.embed_conv"] = f"{patches}.proj3_conv"
        older[f"{patches}.embed1.embed_conv"] = f"{patches}.proj4_conv"
        older[f"{patches}.max_embed2.embed_conv"] = f"{patches}.proj_res_conv"
    for name, old in list(older.items()):
        older[name.replace("_conv", "_bn")] = old.replace("conv", "bn")
    renamed = {}
    for name, tensor in weights.items():
        layer, _, part = name.rpartition(".")
        renamed[f"{older.get(layer, layer)}.{part}"] = tensor
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
    left = [name for name in report.unused if "cannot run" in report.unused[name]]
    assert len(left) == 24
    assert "block3.1.rep_conv.conv2.0.weight" in left


@on_torch
def test_spikformers_for_event_frames_have_norms_and_positions_that_do_not_run(
    tmp_path,
):
    def reported(edition, heads):
        options = {"edition": edition, "heads": heads, "dims": 32, "blocks": 1}
        to_checkpoint(rsnn.models.Spikformer(shape, timesteps=2, **options), path)
        options = {"input_shape": shape, "heads": heads, "verbose": False}
        report = from_checkpoint(path, **options).checkpoint_report
        assert report.found["edition"] == edition
        return report

    shape, path = (32, 32, 2), tmp_path / "written.pth"
    # Images may have two channels, too.
    reported("imagenet", 2)
    assert "does not add" in reported("dvs", None).unused["pos_embed"]
    weights = torch.load(path)["model"]
    assert {"norm.weight", "norm.bias", "block.0.norm1.weight"} <= weights.keys()
    assert weights["pos_embed"].shape == (1, 4, 32)
    assert weights["block.0.mlp.fc1_conv.weight"].shape == (128, 32, 1)


@on_torch
def test_settings_in_a_file_refuse_what_is_another_network(sew, tmp_path):
    arguments = argparse.Namespace(**{**vars(sew["args"]), "connect_f": "IAND"})
    path = saved(tmp_path / "settings.pth", {**sew, "args": arguments})
    message = r"sew_resnet with connect_f='ADD'\. .*args\.connect_f='IAND'"
    with pytest.raises(ValueError, match=message):
        from_checkpoint(path)


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
    told = case.report(path=path, heads=None).assumed["pooling_stat"]
    assert told == "'1010', args.pooling_stat in the file"
    # Settings are data of others.
    content["args"].pooling_stat = "11111"
    told = case.report(path=saved(path, content)).assumed["pooling_stat"]
    assert "args" not in told
    assert_computes(case.model(path=path, pooling_stat="0011"), case.x, case.logits)
    with pytest.raises(ValueError, match="`heads` must be that of the weights, 4"):
        case.model(heads=8)


@on_torch
def test_neurons_given_to_espikeformer_count_before_the_classifier_as_its_own_do():
    case = Case("espikeformer")
    model = case.model(neuron=lambda: ILIF(levels=4, decay=0.0, normalize=True))
    assert_computes(model, case.x, case.logits)


@on_torch
def test_a_model_of_the_user_is_filled():
    def built(width=24 / 512, **kwargs):
        return rsnn.models.VGG11((16, 16, 3), timesteps=2, width=width, **kwargs)

    case, own = Case("ratebp_vgg11"), built(gradient="bptt")
    assert from_checkpoint(case.path, own, verbose=False) is own
    assert_computes(own, case.x, case.logits)
    prepared = chain(layers.Rescaling(2.0), built().network, shape=(16, 16, 3))
    prepared = rsnn.SpikingModel(prepared, timesteps=2)
    from_checkpoint(case.path, prepared, verbose=False)
    assert_computes(prepared, case.x / 2, case.logits)
    with pytest.raises(TypeError, match="`network` is a model"):
        from_checkpoint(case.path, own, timesteps=3)
    for arguments, message in (
        ({"width": 12 / 512}, r"feature.0.weight of shape \(3, 3, 3, 3\)"),
        ({"include_top": False}, "no place for classifier"),
    ):
        other = built(**arguments)
        before = other.network.get_weights()
        with pytest.raises(ValueError, match=message):
            from_checkpoint(case.path, other)
        assert_close(other.network.get_weights(), before, rtol=0)
    # Arguments replace what weights do not tell.
    neuron = functools.partial(LIF, decay=0.7)
    model = case.model(neuron=neuron, include_top=False, timesteps=5, width=0.047)
    assert model.timesteps == 5
    assert model.network.get_layer("block1_neuron1").decay == 0.7
    assert model.network.output_shape == (None, 1, 1, 24)


@on_torch
@pytest.mark.filterwarnings("ignore:Input 'image' of the network has the shape")
def test_dense_weights_on_a_flattened_image_fit_its_size_and_layout():
    with pytest.raises(ValueError, match="which does not fit"):
        Case("ratebp_vggsnn").model(input_shape=(64, 64, 2))
    keras.config.set_image_data_format("channels_first")
    case = Case("ratebp_vggsnn")
    assert_computes(case.model(), case.x, case.logits)


@on_torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.25}, "`width` must be that of the weights, 0.046875"),
        ({"input_shape": (32, 32, 1)}, "`input_shape` must have 3 channels"),
        ({"network": "rate_backpropagation"}, "must be sew_resnet, which the weights"),
        ({"network": torch.nn.Linear(1, 1)}, "name of an architecture or a SpikingMo"),
        ({"weights": "digits"}, "`weights` are those of the file"),
        ({"pooling": 1}, "unexpected keyword argument 'pooling'. Its arguments are in"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_arguments_that_the_file_contradicts_are_errors(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        from_checkpoint(FOLDER / "sew_resnet18.pth", verbose=False, **arguments)


def without_containers(weights):
    return {name.replace(".module.", "."): tensor for name, tensor in weights.items()}


VARIANCE = "bn1.running_var"
BROKEN = [
    ({"fc.bias": None}, "lacks bias of classifier"),
    ({"fc.weight": None, "fc.bias": None}, "lacks 'fc.weight'"),
    ({"bn1.bias": torch.zeros(5)}, r"bn1.bias of shape \(5,\)"),
    ({"bn1.bias": torch.zeros(3, dtype=torch.int64)}, "bn1.bias of shape"),
    ({"layer1.0.conv2.0.weight": torch.zeros(3)}, r"conv2.0.weight of shape \(3,\)"),
    ({"fc.weight": torch.zeros(10, 24, 3, 3)}, r"fc.weight of shape \(10, 24, 3, 3\)"),
    ({"layer1.0.gate": torch.zeros(3)}, "no place for layer1.0.gate"),
    ({"layer1.2.conv1.0.weight": torch.zeros(3, 3, 3, 3)}, "stages of 3, 2, 2, 2 b"),
    ({"fc.bias": torch.full((10,), torch.nan)}, "NaN or infinite in fc.bias"),
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
    for model in (
        models.SEWResNet50(images, timesteps=2, **narrow),
        models.SpikingResformer(images, group_size=4, **resformer),
        models.MSResNet104((32, 32, 3), stem="imagenet", **narrow),
    ):
        shape = model.network.input_shape[1:]
        prepared = chain(layers.Rescaling(1 / 255), model.network, shape=shape)
        to_checkpoint(rsnn.SpikingModel(prepared, model.timesteps), path)
        again = from_checkpoint(path, input_shape=shape, timesteps=1, verbose=False)
        assert again.name == model.name
        assert_same_weights(again, weights_of(model))


@on_torch
def test_sew_resnets_with_if_neurons_are_written_without_biases_and_compute_the_same(
    tmp_path,
):
    case, path = Case("sew_resnet18"), tmp_path / "written.pth"
    model = case.model()
    random = np.random.default_rng(0)
    for layer in model.network.layers:
        if isinstance(layer, layers.Conv2D):
            layer.bias.assign(random.normal(size=layer.bias.shape))
    to_checkpoint(model, path)
    names = content_of("sew_resnet18")["model"].keys()
    assert torch.load(path)["model"].keys() == names
    assert_computes(case.model(path=path), case.x, model.predict(case.x, verbose=0))


@on_torch
def test_networks_of_no_program_are_not_written(tmp_path):
    models, images, narrow = rsnn.models, (16, 16, 3), {"width": 1 / 32}
    learning = {"neuron": ParametricLIF, **narrow}
    own = chain(layers.Conv2D(2, 3), LIF(), shape=images)
    path = tmp_path / "written.pth"
    for model, message in (
        (rsnn.SpikingModel(own, 2), "no name for conv2d"),
        (models.ResNet18(images, include_top=False, **narrow), "lacks 'classifier.0.w"),
        (models.ResNet18(images, normalization="weight", **narrow), "other weights"),
        (models.VGG11(images, **learning), "no name for block1_neuron1"),
    ):
        expected = f"`model` must be a network of one of .*{message}"
        with pytest.raises(ValueError, match=expected):
            to_checkpoint(model, path)
    message = "`path` must be a file in a folder that exists"
    with pytest.raises(FileNotFoundError, match=message):
        to_checkpoint(models.VGG11(images, **narrow), tmp_path / "absent" / "a.pth")
    assert not list(tmp_path.iterdir())


@on_torch
@pytest.mark.parametrize("name", ["ratebp_vgg11", "sdt_v1"])
def test_a_network_is_analysed_and_has_other_classes(name):
    case = Case(name)
    energy = rsnn.analysis.energy(case.model(), case.x)
    assert 0 < energy.total < np.inf
    assert energy.not_counted == ()
    model = case.model(classes=3)
    assert model.network.output_shape == (None, 3)
    reasons = list(model.checkpoint_report.unused.values())
    reason = "it is for 10 classes; what is new, for 3, is not trained"
    assert 0 < reasons.count(reason) <= 2
