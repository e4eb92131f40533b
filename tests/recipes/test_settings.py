"""Settings: what users type, when it has an effect, and what is said if it is wrong."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

import recipes
from recipes import catalogue, methods, run, settings, train
from tests.recipes.recipe_runs import error_of

ROOT = pathlib.Path(recipes.__file__).parent.parent

MISTAKES = """
digits | epochs=0 | `epochs` must be 1 or more. Received: epochs=0
digits | epochs=many | epochs='many'
digits | epochs | 'epochs'
digits | steps=2 | the keys are: learning_rate
digits | name=other | the keys are: learning_rate
digits | restart_at=1 | restart_at=1
digits | timesteps=-1 | timesteps=-1
digits | batch_size=1.5 | `batch_size` must be an integer
digits | learning_rate=0 | learning_rate=0
digits | learning_rate=1e999 | `learning_rate` must be finite
digits | weight_decay=-1 | weight_decay=-1
digits | seed=4294967296 | `seed` must be from 0 to
digits | optimizer={} | `optimizer` must be one of
digits | gradient=ratee | `gradient` must be one of 'rate', 'bptt', 'sltt', 'ottt'
digits | step_mode=all | 'all'
digits | augment=everything | 'everything'
digits | precision=float8 | 'float8'
digits | as_the_authors=1 | `as_the_authors` must be True or False
digits | random_steps=2 | `random_steps` must be None with another gradient than 'sltt'
digits | gradient=sltt random_steps=9 | random_steps
digits | windows=9 | windows
digits | windows=(1,1) | windows
digits | windows=2 gradient=bptt | `windows` must be 1 with another gradient than 'rate'
digits | optimizer=adamw restart_at=0.5 | `restart_at` must be None with another optimiz
digits | ordinary=yes | `ordinary` must be one of
digits | ordinary_epochs=2 | `ordinary_epochs` must be None if no ordinary network is
digits | ordinary=only timesteps=8 seed=1 gradient=bptt | --set timesteps=8 gradient=bpt
digits | ordinary=only weights=int4 | With ordinary=only there is no spiking network
digits | teacher_weight=0.5 | `teacher_weight` must be None if no ordinary network is
digits | teacher_weight=0 ordinary=first | `teacher_weight` must be > 0
digits | teacher_weight=1.5 ordinary=first | `teacher_weight` must be at most 1
digits | teachers=digits | `teachers` must be None without teacher_weight
digits | teacher_weight=0.5 teachers=digits, | `teachers` must be names of pretrained
digits | teacher_weight=0.5 teachers=3 | `teachers` must be names of pretrained
digits | temperature=2 | `temperature` must be None without a teacher, branches and
digits | temperature=0 branches=1 | `temperature` must be > 0
digits | branches=0 | `branches` must be 1 or more
digits | branches=1 step_distillation=0.5 | `branches` and `step_distillation` cannot bo
digits | step_distillation=0 | `step_distillation` must be > 0
digits | start_from=digits ordinary=first | `start_from` and `ordinary` cannot both be s
digits | random_timesteps=4 | `random_timesteps` must be two integers
digits | random_timesteps=[4,1] | `random_timesteps` must be numbers of time steps
digits | random_timesteps=[1,4] windows=2 | `random_timesteps` must be numbers of time s
digits | one_step_epochs=-1 | `one_step_epochs` must be 0 or more
digits | one_step_epochs=1 windows=2 | `one_step_epochs` needs a gradient for T = 1.
digits | one_step_epochs=1 random_timesteps=[1,4] | cannot both be set
digits | two_window_epochs=-1 | `two_window_epochs` must be 0 or more
digits | two_window_epochs=1 gradient=bptt | `two_window_epochs` must be 0 with another
digits | two_window_epochs=1 windows=2 | `two_window_epochs` must be 0 with another
digits | two_window_epochs=1 timesteps=1 | `two_window_epochs` must be 0 in recipe
digits | two_window_epochs=1 one_step_epochs=1 | cannot both be set
digits | two_window_epochs=1 random_timesteps=[2,4] | cannot both be set
digits | initial_membrane=1 | `initial_membrane` must be < 1
japanese_vowels | initial_membrane=0.5 temporal=delays | `initial_membrane` must be 0.0
digits_detection | initial_membrane=0.5 | `initial_membrane` must be 0.0 in recipe
digits | levels=0 | `levels` must be 1 or more. Received: levels=0
digits | levels=4 normalization=weight | `levels` must be None with normalization='weigh
digits | weights=int2 | `weights` must be one of None, 'int8', 'int4', 'ternary'
digits | frame_kind=time | `frame_kind` must be None in recipe 'digits', which does not
digits | image_side=8 | `image_side` must be None in recipe 'digits'
digits | temporal=delays | `temporal` must be None in recipe 'digits'
digits | mix=mosaic | `mix` must be one of 'none', 'mixup', 'cutmix'
nmnist | frame_kind=number | `frame_kind` must be one of None, 'count', 'time'
japanese_vowels | temporal=psn | `temporal` must be one of None, 'recurrent'
japanese_vowels | temporal=delays levels=2 | `levels` must be None with temporal='delays
japanese_vowels | mix=mixup | `mix` 'none' in recipe 'japanese_vowels': layers of
digits_segmentation | teacher_weight=0.5 | `teacher_weight` must be None in recipe 'digi
digits_detection | augment=randaugment | `augment` and `mix` must be 'none' in recipe
cifar10_dvs_vggsnn | ordinary=only | `ordinary` must be 'no' in recipe 'cifar10_dvs_vggs
cifar10_dvs_vggsnn | mix=mixup | layers of Keras take images, not frames
cifar10_dvs_vggsnn | one_step_epochs=1 | `one_step_epochs` must be 0 in recipe
cifar10_dvs_vggsnn | random_timesteps=[1,4] | `random_timesteps` must be None in recipe
"""


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_a_wrong_setting_is_an_error_that_names_it(line):
    name, assignments, said = line.split(" | ")
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        catalogue.find(name).with_settings(assignments.split(" "))


@pytest.mark.parametrize(
    "changes",
    [[], ["ordinary=beside", "branches=1", "temperature=2"], ["ordinary=only"]],
)
def test_a_recipe_is_read_from_the_settings_that_its_run_writes(changes):
    values = catalogue.find("digits").with_settings(changes).settings()
    written = json.loads(json.dumps(values))
    del written["name"]
    again = catalogue.find("digits").with_settings(
        f"{key}={value}" for key, value in written.items()
    )
    assert again.settings() == values


def test_settings_of_another_kind_of_training_are_left_out():
    def values(name, *assignments):
        return catalogue.find(name).with_settings(assignments).settings()

    alone = values("fashion_mnist_resnet13", "ordinary=no")
    names = ("ordinary_epochs", "ordinary_learning_rate", "teacher_weight")
    assert [alone[name] for name in names] == [None] * 3
    assert values("digits_detection", "gradient=bptt")["windows"] == 1
    assert values("fashion_mnist", "optimizer=adamw")["restart_at"] is None
    only = values("digits", "ordinary=only", "epochs=1", "ordinary_epochs=2")
    assert (only["timesteps"], only["epochs"]) == (1, 2)
    residual = values("fashion_mnist_resnet13", "ordinary=only", "epochs=1")
    assert (residual["epochs"], residual["learning_rate"]) == (1, 0.1)
    # A value that the ordinary network has as well is no mistake.
    values("digits", "ordinary=only", "timesteps=1", "gradient=rate")


def test_runs_that_differ_in_the_spiking_network_share_an_ordinary_network():
    recipe = catalogue.find("digits").with_settings(
        ["ordinary=first", "ordinary_epochs=2"]
    )
    alone = recipe.ordinary_alone()
    spiking = "timesteps=8 gradient=bptt epochs=1 teacher_weight=1 levels=4"
    for setting in spiking.split():
        assert recipe.with_settings([setting]).ordinary_alone() == alone
    for setting in ("ordinary_epochs=3", "batch_size=8", "seed=1", "width=2"):
        assert recipe.with_settings([setting]).ordinary_alone() != alone


def test_a_recipe_accepts_every_method_and_its_normalisation():
    digits = catalogue.find("digits")
    for name in ("sltt-single-2", "ottt", "os"):
        recipe = digits.with_settings(["width=0.1", *methods.assignments(name)])
        model = run.build(recipe, recipe.load(None))
        assert model.step_mode == "single"
    kinds = [type(layer).__name__ for layer in model.network.layers]
    assert "OnlineRenormalization" in kinds
    for assignment in ("windows=(1, 3)", "windows=[1, 3]"):
        assert digits.with_settings([assignment]).method.windows == (1, 3)
    imagenet = catalogue.find("imagenet_sew_resnet34")
    with pytest.raises(ValueError, match="`normalization` must be 'batch' in recipe"):
        imagenet.with_settings(["normalization=weight"]).network(width=0.1)


def test_recipes_are_listed_without_keras_and_their_settings_explained(capsys):
    assert train.main([]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == sorted(catalogue.FILES)
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = capsys.readouterr().out
    page = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for name in settings.SETTINGS:
        assert f"--{name.replace('_', '-')} VALUE" in text
        assert f"`{name}`" in page
    assert all(f"\n  {name} " in text for name in catalogue.FILES)
    error = error_of(["digit"], capsys)
    assert all(name in error for name in ("'digit'", *catalogue.FILES))
    program = (
        "import sys; from recipes import train; train.main([]); import recipes.compare."
        "__main__, recipes.audit; sys.exit('keras' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


OWN_METHODS = """
import keras
from keras_ratesnn import gradients

@keras.saving.register_keras_serializable(package="my_methods")
class Half(gradients.GradientMethod):
    def call(self, run):
        outputs = gradients.BPTT().call(run)
        return gradients.extend.graft(keras.ops.stop_gradient(outputs), outputs, 0.5)

class Unregistered(Half):
    pass

@keras.saving.register_keras_serializable(package="my_methods")
class WithArguments(Half):
    def __init__(self, factor):
        self.factor = factor

class Nothing:
    pass
"""


@pytest.fixture
def own_methods(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("methods")
    (folder / "my_methods.py").write_text(OWN_METHODS)
    (folder / "my_package.py").write_text("from my_methods import Half")
    monkeypatch.syspath_prepend(folder)
    yield
    for module in ("my_methods", "my_package"):
        sys.modules.pop(module, None)


WRONG = """
my_methods:Missing | a class that can be imported, package.module:Class
no_such_module:Half | ModuleNotFoundError: No module named
:Half | package.module:Class
my_methods:Nothing | must be a subclass of keras_ratesnn.gradients.Gradient
my_methods:Unregistered | Decorate it with @keras.saving.register_keras_ser
my_methods:WithArguments | made without arguments
"""


def test_a_method_of_ones_own_is_named_where_it_is_defined_or_an_error_says_why_not(
    own_methods,
):
    digits = catalogue.find("digits")
    recipe = digits.with_settings(["gradient=my_package:Half"])
    assert recipe.settings()["gradient"] == "my_methods:Half"
    assert type(recipe.method).__name__ == "Half"
    for line in WRONG.strip().splitlines():
        gradient, said = line.split(" | ")
        with pytest.raises((ValueError, TypeError), match=re.escape(said)):
            digits.with_settings([f"gradient={gradient}"])
