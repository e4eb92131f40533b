"""Networks in SpikingJelly and snnTorch are those of this library: a training step is
that of our BPTT."""

import keras
import numpy as np
import pytest
from helpers import CROSSENTROPY, chain, to_numpy
from keras import ops
from numpy.testing import assert_allclose

import keras_ratesnn
from keras_ratesnn import layers
from recipes import catalogue, run
from recipes.data import japanese_vowels
from recipes.data.dataset import Dataset

pytestmark = pytest.mark.runs_once

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("uint8")
DIGITS = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype("uint8")
SEQUENCES = np.random.default_rng(0).normal(
    0.0, 1.5, (4, japanese_vowels.LONGEST, japanese_vowels.CHANNELS)
)
for _row, _length in zip(SEQUENCES, (29, 20, 7, 11), strict=True):
    _row[_length:] = japanese_vowels.PADDING
LABELS = np.arange(4)

SETTINGS = {
    "digits": ("width=0.25", "timesteps=3"),
    "fashion_mnist": ("width=0.125", "restart_at=None", "timesteps=3"),
    "fashion_mnist_resnet13": ("width=0.05", "ordinary=no", "timesteps=3"),
    "japanese_vowels": ("width=0.125",),
}


def recipe_and_data(name, *settings):
    """A recipe in eager mode for four samples, which are all data."""
    samples = {"digits": DIGITS, "japanese_vowels": SEQUENCES}.get(name, IMAGES)
    dataset = Dataset(samples, LABELS, samples, LABELS, tuple("0123456789"))
    chosen = ["gradient=bptt", "jit_compile=False", "epochs=4", "batch_size=4"]
    chosen += [*SETTINGS[name], *settings]
    return catalogue.find(name).with_settings(chosen), dataset


def three_losses(trainer, samples):
    """The losses of three steps on all data: the later ones are those of the weights
    after a step."""
    batch = [ops.convert_to_tensor(part) for part in (samples, LABELS)]
    return [float(np.ravel(trainer.train_on_batch(*batch))[0]) for _ in range(3)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_recipe_is_trained_in_spikingjelly_as_by_our_bptt(name):
    """With the recipe's optimizer; in double precision, since rounding can move a
    membrane over its threshold."""
    pytest.importorskip("spikingjelly")
    from recipes.benchmark import peers
    from recipes.benchmark.translated import Translated
    from recipes.compare.peer_training import RecipeOptimizer

    recipe, dataset = recipe_and_data(name, "precision=float64")
    model = run.build(recipe, dataset)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.Dropout):
            # Each library draws its own numbers.
            layer.rate = 0.0
    images, losses = ops.convert_to_tensor(dataset.train_images), []
    for level in (0, 1):
        network = Translated(model).double()
        optimizer = RecipeOptimizer(network, recipe, recipe.epochs)
        trainer = peers.Trainer(network, "float32", optimizer)
        if level:
            peers.optimize_memory(trainer, images, level)
        losses.append(three_losses(trainer, dataset.train_images))
    expected = three_losses(model, dataset.train_images)
    assert_allclose(losses, [expected, expected], rtol=1e-5)
    assert expected[0] != expected[2]


@pytest.mark.parametrize(
    ("name", "step_mode"), [("fashion_mnist", "single"), ("japanese_vowels", "multi")]
)
def test_a_network_with_delayed_resets_is_trained_in_snntorch_as_by_our_bptt(
    name, step_mode
):
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
    model = keras_ratesnn.SpikingModel(
        network, recipe.timesteps, "bptt", step_mode, mask_value=recipe.mask_value
    )
    optimizer = keras.optimizers.SGD(peers.LEARNING_RATE)
    model.compile(optimizer, CROSSENTROPY, jit_compile=False)
    samples = dataset.train_images.astype("float32")
    trainer = peers.Trainer(Translated(model, "snntorch"), "float32")
    losses = three_losses(trainer, samples)
    assert_allclose(losses, three_losses(model, samples), rtol=1e-4)


LAYERS = [
    keras.layers.Conv2D(6, 3, strides=2, padding="same"),
    keras.layers.Conv2D(6, 3, strides=(1, 2), padding="same", use_bias=False),
    keras.layers.Conv2D(6, 3, strides=3, bias_initializer="ones"),
    keras.layers.AveragePooling2D(3, strides=2),
]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_keeps_all_its_arguments(layer):
    from recipes.benchmark.translated import module_of

    for size in (7, 8):
        layer = type(layer).from_config(layer.get_config())
        layer(keras.Input((size, size, 4)))
        images = np.random.default_rng(0).normal(size=(2, size, size, 4))
        tensor = ops.convert_to_tensor(images.astype("float32"))
        outputs = module_of(layer)(tensor.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        assert_allclose(outputs.detach(), to_numpy(layer(tensor)), atol=1e-5)


MAX_FORMER = """
patches1_1_conv patch_embed1.conv
patches1_2_conv patch_embed1.branch.1
patches1_shortcut_conv patch_embed1.shortcut.1
patches2_1_conv patch_embed2.conv1
patches2_2_conv patch_embed2.conv2
patches2_shortcut_conv patch_embed2.shortcut.0
patches3_1_conv patch_embed3.conv1
patches3_2_conv patch_embed3.conv2
patches3_shortcut_conv patch_embed3.shortcut.0
stage1_block1_mlp1 stage1.0.fc1
stage1_block1_mlp2 stage1.0.fc2
stage2_block1_depthwise stage2.0.dwconv
stage2_block1_mlp1 stage2.0.mlp.fc1
stage2_block1_mlp2 stage2.0.mlp.fc2
stage3_block1_attention_output stage3.0.attn.proj.0
stage3_block1_mlp1 stage3.0.mlp.fc1
stage3_block1_mlp2 stage3.0.mlp.fc2
stage3_block2_attention_output stage3.1.attn.proj.0
stage3_block2_mlp1 stage3.1.mlp.fc1
stage3_block2_mlp2 stage3.1.mlp.fc2
classifier head
"""
"""The modules of SpikingJelly's Max-Former by the names of our layers."""

PROJECTIONS = ("query", "key", "value")


def test_spikingjellys_max_former_is_the_same_network():
    pytest.importorskip("spikingjelly")
    import torch

    from recipes.benchmark import cases, peers
    from recipes.benchmark.settings import Settings

    settings = Settings(network="MaxFormer", width=64 / 384, size=16, batch=4)
    model = cases.trainer(settings, "bptt-multi", 2)
    trainer = peers.trainer(settings, "spikingjelly", 2)
    theirs, layer = trainer.network.network, model.network.get_layer

    def take(name, *kernels, bias=None):
        module = theirs.get_submodule(name)
        kernel = torch.cat([torch.tensor(to_numpy(one)) for one in kernels], dim=1)
        order = {2: (1, 0), 4: (3, 2, 0, 1)}[kernel.ndim]
        order = (2, 3, 0, 1) if name.endswith("dwconv") else order
        module.weight.copy_(kernel.permute(order).reshape(module.weight.shape))
        if bias is not None:
            module.bias.copy_(torch.tensor(to_numpy(bias)))

    with torch.no_grad():
        for line in MAX_FORMER.strip().splitlines():
            ours, name = line.split()
            take(name, layer(ours).kernel, bias=getattr(layer(ours), "bias", None))
        for block in (1, 2):
            names = (f"stage3_block{block}_attention_{part}" for part in PROJECTIONS)
            kernels = [layer(name).kernel for name in names]
            take(f"stage3.{block - 1}.attn.qkv.0", *kernels)
    count = peers.number_of_parameters
    assert count(theirs.parameters()) == count(model.trainable_variables)
    batch = cases.batch(settings, 2, "spikingjelly")
    losses = [trainer.train_on_batch(*batch) for _ in range(2)]
    batch = cases.batch(settings, 2)
    expected = [float(np.ravel(model.train_on_batch(*batch))[0]) for _ in range(2)]
    assert_allclose(losses, expected, rtol=1e-3)
    assert expected[0] != expected[1]


def test_a_comparison_with_a_network_of_other_work_ends():
    pytest.importorskip("spikingjelly")
    from recipes.benchmark.peers import check_equal_work
    from recipes.benchmark.translated import Translated

    recipe, dataset = recipe_and_data("digits", "step_mode=multi")
    model = run.build(recipe, dataset)
    theirs = Translated(model)
    parts = (dataset.train_images, dataset.train_labels)
    batch = [ops.convert_to_tensor(part[:2]) for part in parts]
    check_equal_work(model, theirs, batch, recipe.precision)
    for module in theirs.modules():
        if getattr(module, "stride", None) == (2, 2):
            module.stride = 1, 1
    said = "The translated network is another one: FLOPs of a step are"
    with pytest.raises(AssertionError, match=said):
        check_equal_work(model, theirs, batch, recipe.precision)


LACKING = [
    (layers.LIF(reset="hard"), "no LIF with its reset and surrogate"),
    (layers.LIF(learn_decay=True), "no LIF with learn_decay=True"),
    (layers.LIF(decay=[0.1]), "must be numbers"),
    (layers.IF(), "none of type IF"),
    (keras.layers.Rescaling([0.5]), "Its scale and its offset must be numbers"),
    (keras.layers.AveragePooling2D(3, padding="same"), "must be after the image"),
    (keras.layers.BatchNormalization(scale=False), "no BatchNormalization with scale"),
    (keras.layers.Conv2D(1, 1, activation="relu"), "no Conv2D with activation='relu'"),
]


@pytest.mark.parametrize(
    ("layer", "reason"), LACKING, ids=[reason for _, reason in LACKING]
)
def test_what_another_library_lacks_is_named(layer, reason):
    pytest.importorskip("spikingjelly")
    from recipes.benchmark.translated import Translated

    parts = layer, layers.LIF(name="last"), keras.layers.GlobalAveragePooling2D()
    network = chain(*parts, shape=(4, 4, 1))
    said = f"`network` must be of layers that have a translation.*{reason}"
    with pytest.raises(ValueError, match=said):
        Translated(keras_ratesnn.SpikingModel(network, 2))
