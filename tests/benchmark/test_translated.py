"""Networks in SpikingJelly and snnTorch are those of this library: a training step is that of our BPTT."""

import keras
import numpy as np
import pytest

import keras_ratesnn
from keras_ratesnn import layers
from recipes import catalogue, run
from recipes.data import japanese_vowels
from recipes.data.dataset import Dataset

pytestmark = pytest.mark.runs_once

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("uint8")
SEQUENCES = np.random.default_rng(0).normal(0.0, 1.5, (4, japanese_vowels.LONGEST, japanese_vowels.CHANNELS))
for _row, _length in zip(SEQUENCES, (29, 20, 7, 11), strict=True):
    _row[_length:] = japanese_vowels.PADDING
LABELS = np.arange(4)

SETTINGS = {
    "fashion_mnist": ("width=0.125", "restart_at=None", "timesteps=3"),
    "fashion_mnist_resnet13": ("width=0.05", "ordinary=no", "timesteps=3"),
    "japanese_vowels": ("width=0.125",),
}


def recipe_and_data(name, *settings):
    """A recipe in eager mode for four samples, which are all data."""
    samples = SEQUENCES if name == "japanese_vowels" else IMAGES
    dataset = Dataset(samples, LABELS, samples, LABELS, tuple("0123456789"))
    chosen = ("gradient=bptt", "jit_compile=False", "epochs=4", "batch_size=4", *SETTINGS[name], *settings)
    return catalogue.find(name).with_settings(chosen), dataset


def three_losses(trainer, samples):
    """The losses of three steps on all data: the later ones are those of the weights after a step."""
    batch = [keras.ops.convert_to_tensor(part) for part in (samples, LABELS)]
    return [float(np.ravel(trainer.train_on_batch(*batch))[0]) for _ in range(3)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_is_trained_in_spikingjelly_as_by_our_bptt(name):
    """With the recipe's optimizer; in double precision, since rounding can move a membrane over its threshold."""
    pytest.importorskip("spikingjelly")
    from recipes.benchmark import peers
    from recipes.benchmark.translated import Chain, Translated
    from recipes.compare.peer_training import RecipeOptimizer

    recipe, dataset = recipe_and_data(name, "precision=float64")
    model = run.build(recipe, dataset)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.Dropout):
            # Each library draws its own numbers.
            layer.rate = 0.0
    losses = []
    for level in (0, 1):
        network = Translated(model).double()
        trainer = peers.Trainer(network, "float32", RecipeOptimizer(network, recipe, recipe.epochs))
        if level:
            peers.optimize_memory(trainer, keras.ops.convert_to_tensor(dataset.train_images), level, Chain)
        losses.append(three_losses(trainer, dataset.train_images))
    expected = three_losses(model, dataset.train_images)
    np.testing.assert_allclose(losses, [expected, expected], rtol=1e-5)
    assert expected[0] != expected[2]


@pytest.mark.parametrize(("name", "step_mode"), [("fashion_mnist", "single"), ("japanese_vowels", "multi")])
def test_a_network_with_delayed_resets_is_trained_in_snntorch_as_by_our_bptt(name, step_mode):
    """snnTorch computes in single precision."""
    pytest.importorskip("snntorch")
    from recipes.benchmark import peers
    from recipes.benchmark.translated import Translated

    recipe, dataset = recipe_and_data(name)
    built = run.build(recipe, dataset)

    def delayed(layer):
        changes = {"reset_delay": True} if isinstance(layer, layers.LIF) else {}
        changes |= {"rate": 0.0} if isinstance(layer, keras.layers.Dropout) else {}
        return type(layer).from_config({**layer.get_config(), **changes})

    network = keras.models.clone_model(built.network, clone_function=delayed)
    network.set_weights(built.network.get_weights())
    model = keras_ratesnn.SpikingModel(network, recipe.timesteps, "bptt", step_mode, mask_value=recipe.mask_value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(peers.LEARNING_RATE), loss, jit_compile=False)
    samples = dataset.train_images.astype("float32")
    found = three_losses(peers.Trainer(Translated(model, "snntorch"), "float32"), samples)
    np.testing.assert_allclose(found, three_losses(model, samples), rtol=1e-4)


def test_what_another_library_lacks_is_named():
    pytest.importorskip("spikingjelly")
    from recipes.benchmark.translated import Translated

    inputs = keras.Input((4, 4, 1))
    for layer, kind in (
        (layers.LIF(reset="hard"), "LIF"),
        (layers.LIF(reset_delay=True), "LIF"),
        (layers.LIF(surrogate="atan"), "LIF"),
        (layers.IF(), "IF"),
        (keras.layers.MaxPooling2D(), "MaxPooling2D"),
    ):
        network = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(layers.LIF()(layer(inputs))))
        with pytest.raises(ValueError, match=f"`network` must be of layers .* none of type {kind}"):
            Translated(keras_ratesnn.SpikingModel(network, 2))
