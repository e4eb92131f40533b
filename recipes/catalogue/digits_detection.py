"""Detection of digits in scenes of 64x64 pixels, with a small YOLOv8."""

import functools

import keras_ratesnn
from recipes.data import scenes
from recipes.recipe import Recipe
from recipes.tasks import detection

CHANNELS = (16, 32, 48, 64)
DEPTHS = (1, 1, 0, 0)
"""Few blocks: every layer of neurons adds errors at T = 4."""
LARGEST_STRIDE = 32
MOST_BOXES = 100
LEAST_CONFIDENCE = 0.01
"""Average precision also counts boxes of little confidence."""


def build_network(width, dataset):
    import keras_cv

    from recipes.tasks.yolo import ReLUDetector

    detection.check_side(dataset.train_images.shape[1], LARGEST_STRIDE)
    backbone = keras_cv.models.YOLOV8Backbone(
        stackwise_channels=[
            max(2, 2 * round(channels * width / 2)) for channels in CHANNELS
        ],
        stackwise_depth=list(DEPTHS),
        include_rescaling=True,
        activation="relu",
        input_shape=dataset.train_images.shape[1:],
    )
    decoder = keras_cv.layers.NonMaxSuppression(
        detection.BOX_FORMAT,
        from_logits=False,
        confidence_threshold=LEAST_CONFIDENCE,
        max_detections=MOST_BOXES,
        dtype="float32",
    )
    return ReLUDetector(
        backbone,
        dataset.classes,
        detection.BOX_FORMAT,
        fpn_depth=0,
        prediction_decoder=decoder,
    )


RECIPES = (
    Recipe(
        name="digits_detection",
        load_data=scenes.load_boxes,
        build_network=build_network,
        # In a deep network the gradient of neurons with a detached reset grows from
        # layer to layer.
        neuron=functools.partial(
            keras_ratesnn.layers.IF, detach_reset=False, initial_membrane=0.5
        ),
        task=detection.DETECTION,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.01,
        epochs=12,
        batch_size=16,
        timesteps=4,
        windows=2,
        ordinary="first",
        image_side=scenes.SIDE,
    ),
)
