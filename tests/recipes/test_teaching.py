"""Recipes whose spiking network learns from the ordinary network, from pretrained ones,
from branches or from its own steps, or starts from a pretrained network."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import to_numpy

import keras_ratesnn as rsnn
from recipes import catalogue, distribution, evaluate, publish, run, run_folder
from recipes.data import digits
from recipes.run import calibration_images
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import (
    assert_same_states,
    curve_without_times,
    error_of,
    stopped,
    trained,
)

TINY = ("timesteps=2", "batch_size=360", "train_images=720", "width=0.125")
if keras.backend.backend() != "jax":
    # Operation by operation JAX takes minutes.
    TINY += ("jit_compile=False",)
TAUGHT = ("ordinary=first", "ordinary_epochs=1", "epochs=2", "teacher_weight=0.5")
ONE_STEP_FIRST = ("one_step_epochs=1", "epochs=2")
DRAWN = ("step_mode=single", "gradient=sltt", "random_steps=1")


def test_the_ordinary_network_has_its_own_length_and_a_run_tells_what_it_brought(
    tmp_path, capsys
):
    """It can be trained before."""
    settings = ("ordinary_epochs=1", "ordinary_learning_rate=0.2", "epochs=2")
    run = ("digits", "--set", *settings, *TINY[1:])
    alone = trained(tmp_path / "ordinary", *run, "ordinary=only")
    values = [alone["settings"][name] for name in ("epochs", "learning_rate")]
    assert (len(alone["curve"]["loss"]), values) == (1, [1, 0.2])
    capsys.readouterr()
    path = str(tmp_path / "ordinary")
    assert evaluate.main([path]) == 0
    assert "digits, ordinary network, 360 test images" in capsys.readouterr().out
    error = error_of([path, "--timesteps", "2"], capsys, evaluate.main)
    assert "--timesteps is for spiking networks" in error
    both = trained(tmp_path, *run, "ordinary=first", TINY[0])
    assert json.loads((tmp_path / "ordinary" / "result.json").read_text()) == alone
    assert len(both["curve"]["loss"]) == 2
    comparison, printed = both["comparison"], capsys.readouterr().out
    score, score_of_converted = (
        comparison[name]["accuracy"] for name in ("ordinary", "converted")
    )
    assert score == alone["test_accuracy"]
    assert f"ordinary network, test accuracy: {score:.4f}" in printed
    said = f"converted, before training, test accuracy: {score_of_converted:.4f}"
    assert said in printed
    ordinary = keras.saving.load_model(tmp_path / "ordinary" / "last.keras")
    data = catalogue.find("digits").with_settings(TINY).load(None)
    images = calibration_images(data)
    converted = rsnn.spikify(ordinary, 2, calibrate=images, verbose=False)
    assert accuracy(converted) == pytest.approx(score_of_converted, abs=1e-6)
    # Whatever was built before, layers have the same names.
    network = run_folder.load_model(tmp_path / "last.keras").network
    kinds = rsnn.layers.Neuron
    names = [layer.name for layer in network.layers if isinstance(layer, kinds)]
    assert names == ["lif", "lif_1", "lif_2"]


@pytest.mark.parametrize(
    ("settings", "score"),
    [
        ((*TAUGHT, "levels=2", "random_timesteps=[1,3]", *DRAWN), "test_student_loss"),
        (("branches=1", "two_window_epochs=1", "epochs=2"), "test_accuracy"),
        (("branches=1", *ONE_STEP_FIRST, "temperature=2.0"), "test_accuracy"),
        (
            ("random_timesteps=[1,3]", "step_distillation=0.5", "epochs=2"),
            "test_accuracy",
        ),
    ],
)
def test_a_taught_run_resumes_and_its_network_is_an_ordinary_checkpoint(
    settings, score, tmp_path, capsys
):
    run = ("digits", "--set", *TINY, *settings)
    whole = trained(tmp_path / "whole", *run)
    if "comparison" in whole:
        # To train it once is enough.
        shutil.copytree(
            tmp_path / "whole" / "ordinary", tmp_path / "stopped" / "ordinary"
        )
    stopped(tmp_path / "stopped", 1, *run)
    resumed = trained(tmp_path / "stopped", *run)
    assert "resumes after 1 epochs" in capsys.readouterr().out
    assert curve_without_times(resumed) == curve_without_times(whole)
    assert_same_states(
        tmp_path / "stopped" / "last.keras", tmp_path / "whole" / "last.keras"
    )
    assert score in whole["curve"]
    model = keras.saving.load_model(tmp_path / "whole" / "last.keras")
    assert isinstance(model, rsnn.SpikingModel)
    assert model.count_params() == whole["parameters"]
    assert not any("branch" in layer.name for layer in model.network.layers)
    assert accuracy(model) == pytest.approx(whole["test_accuracy"], abs=1e-6)
    if "comparison" in whole:
        own = whole["comparison"]["spiking"]["2"]["accuracy"]
        assert own == pytest.approx(whole["test_accuracy"], abs=1e-6)
        # Killed after the last checkpoints of both networks.
        for result in (tmp_path / "whole").rglob("result.json"):
            result.unlink()
        assert trained(tmp_path / "whole", *run) == whole


def accuracy(model):
    """The accuracy of a classifier on the test digits."""
    data = digits.load()
    classes = to_numpy(model.predict(data.test_images, verbose=0)).argmax(-1)
    return (classes == data.test_labels).mean()


@pytest.mark.backends(3)
def test_the_loss_of_a_taught_run_weighs_labels_and_teacher(tmp_path):
    settings = (*TINY, *TAUGHT, "teacher_weight=0.3", "temperature=2.0")
    recipe, data = catalogue.find("digits").with_settings(settings), digits.load()
    teacher, path = recipe.ordinary_network(data), tmp_path / "ordinary.keras"
    teacher.save(path)
    model = run.build(recipe, data, path)
    fitted = run.to_fit(model, recipe, data, path)
    images, labels = data.test_images[:32], data.test_labels[:32]
    logs = fitted.evaluate(images, labels, batch_size=32, verbose=0, return_dict=True)
    own, soft = (
        keras.ops.convert_to_tensor(network.predict(images, verbose=0))
        for network in (model, teacher)
    )
    losses = keras.losses
    label_loss = losses.SparseCategoricalCrossentropy(from_logits=True)(labels, own)
    softened = keras.ops.softmax(soft / 2), keras.ops.softmax(own / 2)
    divergence = losses.KLDivergence()(*softened)
    expected = 0.7 * float(label_loss) + 0.3 * 4 * float(divergence)
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_taught_run_in_half_precision_is_published_in_whole(tmp_path):
    values = (*TINY, *TAUGHT, "epochs=1", "precision=mixed_bfloat16")
    record = trained(tmp_path / "run", "digits", "--set", *values)
    assert np.isfinite(record["curve"]["loss"]).all()
    texts = "--name half --data-set d --preprocessing p --licence MIT --timesteps 1 3"
    command = f"{tmp_path}/run --folder {tmp_path} {texts}"
    assert publish.main(command.split()) == 0
    model = keras.saving.load_model(tmp_path / "weights" / "half.keras")
    assert {layer.compute_dtype for layer in model.network.layers} == {"float32"}
    card = json.loads((tmp_path / "cards" / "half.json").read_text())
    assert list(card["accuracies"]) == ["1", "2", "3"]
    for timesteps, expected in card["accuracies"].items():
        model.timesteps = int(timesteps)
        assert accuracy(model) == pytest.approx(expected, abs=1e-6)
    assert card["test_accuracy"] == card["accuracies"]["2"]


# Pretrained networks


@pytest.fixture
def clothes(tmp_path):
    """A function of the name of a recipe and settings that returns the recipe and its
    data."""
    write_clothes(tmp_path)

    def load(name, *settings):
        recipe = catalogue.find(name).with_settings(settings)
        return recipe, recipe.load(tmp_path)

    return load


def test_a_converted_network_is_trained_on_with_its_scales(clothes):
    name = "fashion_mnist_resnet13_integer"
    alone = ["ordinary=no", "teacher_weight=None", "precision=float32", "timesteps=1"]
    recipe, data = clothes("fashion_mnist_resnet13", *alone, f"start_from={name}")
    model, images = (
        run.build(recipe.with_settings(["levels=4"]), data),
        data.test_images,
    )
    wanted = to_numpy(rsnn.models.load_pretrained(name)(images[:4]))
    np.testing.assert_allclose(to_numpy(model(images[:4])), wanted, atol=1e-5)
    with pytest.raises(ValueError, match="Its neurons have other levels of spikes"):
        run.build(recipe, data)


def test_a_network_of_quantised_weights_is_trained_on_with_them(clothes):
    recipe, data = clothes("fashion_mnist", "start_from=fashion_mnist_int4")
    said = "`start_from` must be a network of floats, unless.*Set weights=int8"
    with pytest.raises(ValueError, match=said):
        run.build(recipe, data)
    layers = run.build(recipe.with_settings(["weights=ternary"]), data).network.layers
    kinds = [layer.weight_type for layer in layers if hasattr(layer, "weight_type")]
    assert kinds == ["int8", *["ternary"] * 4, "int8"]


def test_the_mean_of_pretrained_networks_teaches(clothes):
    names = ("fashion_mnist", "fashion_mnist_int4")
    teachers = ("teacher_weight=0.5", f"teachers={','.join(names)}")
    recipe, data = clothes("fashion_mnist", *TINY, "train_images=None", *teachers)
    images = data.test_images[:8]
    fitted = run.to_fit(run.build(recipe, data), recipe, data)
    outputs = [to_numpy(rsnn.models.load_pretrained(name)(images)) for name in names]
    mean = np.mean(outputs, axis=0)
    np.testing.assert_allclose(to_numpy(fitted.teacher(images)), mean, atol=1e-4)
    with_digits = recipe.with_settings(["teachers=digits"])
    with pytest.raises(ValueError, match="`teachers` must be pretrained networks from"):
        run.to_fit(run.build(recipe, data), with_digits, data)


def test_several_devices_have_no_teacher(tmp_path, monkeypatch):
    recipe = catalogue.find("digits").with_settings([*TINY, *TAUGHT])
    monkeypatch.setattr(distribution, "current", distribution.Distribution(devices=2))
    with pytest.raises(ValueError, match="--devices must be 1 with `teacher_weight`"):
        run.build(recipe, digits.load(), tmp_path / "ordinary.keras")
