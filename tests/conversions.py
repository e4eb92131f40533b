"""What `spikify` makes of the networks of keras-cv and KerasHub: a table, which docs/tasks.md shows.

    python tests/conversions.py             # prints the rows of keras-cv
    python tests/conversions.py keras_hub   # prints those of KerasHub, which must be installed

All networks are made with explicit arguments, small and with random weights: nothing is downloaded.
"""

import collections
import sys

import keras

from keras_ratesnn import spikify

SHAPE = (64, 64, 3)


def _keras_cv():
    from keras_cv import models

    def resnet():
        return models.ResNetBackbone(
            stackwise_filters=[8, 16, 24, 32],
            stackwise_blocks=[2, 2, 2, 2],
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=False,
            input_shape=SHAPE,
        )

    def yolo():
        return models.YOLOV8Backbone(
            stackwise_channels=[16, 24, 32, 48], stackwise_depth=[1, 1, 1, 1], include_rescaling=False, input_shape=SHAPE
        )

    return {
        "ResNetBackbone": resnet,
        "DenseNetBackbone": lambda: models.DenseNetBackbone(
            stackwise_num_repeats=[2, 2, 2, 2], growth_rate=8, include_rescaling=False, input_shape=SHAPE
        ),
        "YOLOV8Backbone": yolo,
        "CSPDarkNetBackbone": lambda: models.CSPDarkNetBackbone(
            stackwise_channels=[16, 24, 32, 48],
            stackwise_depth=[1, 1, 1, 1],
            include_rescaling=False,
            use_depthwise=False,
            input_shape=SHAPE,
        ),
        "EfficientNetV1Backbone": lambda: models.EfficientNetV1Backbone(
            include_rescaling=False,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            input_shape=SHAPE,
            stackwise_kernel_sizes=[3, 3],
            stackwise_num_repeats=[1, 2],
            stackwise_input_filters=[32, 16],
            stackwise_output_filters=[16, 24],
            stackwise_expansion_ratios=[1, 6],
            stackwise_strides=[1, 2],
            stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        ),
        "YOLOV8Detector": lambda: models.YOLOV8Detector(
            backbone=yolo(), num_classes=10, bounding_box_format="xyxy", fpn_depth=1
        ),
        "RetinaNet": lambda: models.RetinaNet(backbone=resnet(), num_classes=10, bounding_box_format="xyxy"),
        "DeepLabV3Plus": lambda: models.DeepLabV3Plus(backbone=resnet(), num_classes=10),
    }


def _keras_hub():
    from keras_hub import models

    return {
        "ResNetBackbone": lambda: models.ResNetBackbone(
            input_conv_filters=[8],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[8, 16],
            stackwise_num_blocks=[2, 2],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
            image_shape=SHAPE,
        ),
        "ViTBackbone": lambda: models.ViTBackbone(
            image_shape=SHAPE, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
        ),
        "EfficientNetBackbone": lambda: models.EfficientNetBackbone(
            stackwise_width_coefficients=[1.0, 1.0],
            stackwise_depth_coefficients=[1.0, 1.0],
            stackwise_kernel_sizes=[3, 3],
            stackwise_num_repeats=[1, 2],
            stackwise_input_filters=[32, 16],
            stackwise_output_filters=[16, 24],
            stackwise_expansion_ratios=[1, 6],
            stackwise_strides=[1, 2],
            stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
            image_shape=SHAPE,
        ),
    }


LIBRARIES = {"keras_cv": ("keras-cv", _keras_cv), "keras_hub": ("KerasHub", _keras_hub)}


def rows(library):
    """The rows of the table for the networks of a library, a list of strings."""
    title, networks = LIBRARIES[library]
    return [_row(f"{title} {name}", spikify(make(), timesteps=2, verbose=False)) for name, make in networks().items()]


def _row(name, model):
    report = model.spikify_report
    left = collections.Counter((change.activation, change.reason) for change in report.kept)
    text = "; ".join(f"{count} {activation} ({reason})" for (activation, reason), count in sorted(left.items()))
    return f"| {name} | {len(report.replaced)} | {text or 'none'} |"


if __name__ == "__main__":
    keras.config.disable_traceback_filtering()
    print(*rows(sys.argv[1] if len(sys.argv) > 1 else "keras_cv"), sep="\n")
