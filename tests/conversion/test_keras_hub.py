"""What becomes of networks of KerasHub, and how its tasks train. KerasHub is not in the
extra `test`: .ci/versions kerashub."""

import conversions
import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_ratesnn import spikify

keras_hub = pytest.importorskip(
    "keras_hub",
    reason="its dependencies are not in the extra test: see .ci/versions kerashub",
)

# KerasHub gives its own pipelines of data to `fit`, of which Keras warns.
pytestmark = [
    pytest.mark.on_each_backend,
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),
]

NETWORKS = conversions.networks("keras_hub")


@pytest.mark.filterwarnings("ignore:Layer 'attn':UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_shows_what_becomes_of_a_network_and_a_task_is_trained_and_saved(name):
    model = conversions.converted(NETWORKS[name]())
    row = conversions.row(name, model)
    assert conversions.is_shown(row), row
    if hasattr(model, "preprocessor"):
        conversions.check_task(model)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_a_vision_transformer_learns_by_rate_through_its_softmax_attention(step_mode):
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 1),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )
    task = keras_hub.models.ViTImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=None
    )
    model = spikify(task, timesteps=4, step_mode=step_mode, verbose=False)
    images, labels = (
        np.random.default_rng(0).random((12, 8, 8, 1), dtype="float32"),
        np.arange(12) % 3,
    )
    # The patch of its class is bright.
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 2.0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    before = to_numpy(model.trainable_weights)
    losses = model.fit(images, labels, batch_size=12, epochs=100, verbose=0).history[
        "loss"
    ]
    assert all(
        (new != old).any()
        for new, old in zip(to_numpy(model.trainable_weights), before, strict=True)
    )
    assert losses[-1] < 0.3
