"""Detection and segmentation of digits in scenes of 64x64 pixels, with a small YOLOv8
and a small U-Net."""

import functools

import keras

import keras_ratesnn
from recipes import layers
from recipes.data import scenes
from recipes.recipe import Recipe
from recipes.tasks import detection, segmentation

BACKBONE_CHANNELS = (16, 32, 48, 64)
DEPTHS = (1, 1, 0, 0)
"""Few blocks: every layer of neurons adds errors at T = 4."""

LARGEST_STRIDE = 32
MOST_BOXES = 100
LEAST_CONFIDENCE = 0.01
"""Average precision also counts boxes of little confidence."""

U_NET_CHANNELS = (16, 24, 32, 48)
LARGEST_PIXEL = 255


def detector(width, dataset):
    import keras_cv

    from recipes.tasks.yolo import ReLUDetector

    image_shape = dataset.train_images.shape[1:]
    if image_shape[0] % LARGEST_STRIDE:
        raise ValueError(
            f"`image_side` must be a multiple of {LARGEST_STRIDE}, the largest stride "
            f"of the network. Received: {image_shape[0]}."
        )
    backbone = keras_cv.models.YOLOV8Backbone(
        stackwise_channels=[
            2 * layers.channels(channels / 2, width) for channels in BACKBONE_CHANNELS
        ],
        stackwise_depth=list(DEPTHS),
        include_rescaling=True,
        activation="relu",
        input_shape=image_shape,
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


def u_net(width, dataset):
    sizes = [layers.channels(channels, width) for channels in U_NET_CHANNELS]
    inputs = keras.Input(dataset.train_images.shape[1:], name="pixels")
    x = _convolution(keras.layers.Rescaling(1 / LARGEST_PIXEL)(inputs), sizes[0])
    levels = []
    for channels in sizes[1:]:
        x = _convolution(x, channels, strides=2)
        levels.append(x)
    x = _convolution(levels.pop(), sizes[-1])
    for channels, level in zip(sizes[-2:0:-1], reversed(levels), strict=True):
        x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), level])
        x = _convolution(x, channels)
    logits = keras.layers.Conv2DTranspose(
        dataset.classes, 4, strides=2, padding="same", dtype="float32", name="logits"
    )(x)
    return keras.Model(inputs, logits, name="u_net")


def _convolution(x, channels, strides=1):
    x = keras.layers.Conv2D(
        channels, 3, strides=strides, padding="same", use_bias=False
    )(x)
    return keras.layers.ReLU()(layers.normalized(x))


recipe = functools.partial(
    Recipe,
    # In a deep network the gradient of neurons with a detached reset grows from layer
    # to layer.
    neuron=functools.partial(
        keras_ratesnn.layers.IF, detach_reset=False, initial_membrane=0.5
    ),
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.01,
    timesteps=4,
    ordinary="first",
)

RECIPES = (
    recipe(
        name="digits_detection",
        load_data=scenes.load_boxes,
        build_network=detector,
        task=detection.DETECTION,
        epochs=12,
        batch_size=16,
        windows=2,
        image_side=scenes.SIDE,
    ),
    recipe(
        name="digits_segmentation",
        load_data=scenes.load_masks,
        build_network=u_net,
        task=segmentation.SEGMENTATION,
        epochs=10,
        batch_size=32,
    ),
)
