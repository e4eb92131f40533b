"""What `spikify` makes of the networks of keras-cv and KerasHub: a table, which docs/tasks.md shows.

    python tests/conversions.py keras_cv
    python tests/conversions.py keras_hub  # KerasHub must be installed

prints the rows and fails if the page has others. All networks are made with explicit arguments, small and with random weights:
nothing is downloaded.
"""

import collections
import pathlib
import sys

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
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64],
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
            stackwise_block_types=["v1", "v1"],
            stackwise_force_input_filters=[0, 0],
            stackwise_nores_option=[False, False],
            input_shape=SHAPE,
        ),
    }


LIBRARIES = {"keras_cv": ("keras-cv", _keras_cv), "keras_hub": ("KerasHub", _keras_hub)}


def networks(library):
    """Dict of the names of the networks of a library to functions that make them."""
    title, make = LIBRARIES[library]
    return {f"{title} {name}": network for name, network in make().items()}


def row(name, network):
    """The row of the table for a network."""
    return _row(name, spikify(network, timesteps=2, verbose=False))


def is_shown(row):
    """Whether docs/tasks.md has a row."""
    return row in (pathlib.Path(__file__).parent.parent / "docs" / "tasks.md").read_text().splitlines()


def _row(name, model):
    report = model.spikify_report
    left = collections.Counter((change.activation, change.reason) for change in report.kept)
    text = "; ".join(f"{count} {activation} ({reason})" for (activation, reason), count in sorted(left.items()))
    return f"| {name} | {len(report.replaced)} | {text or 'none'} |"


if __name__ == "__main__":
    found = [row(name, make()) for name, make in networks(sys.argv[1]).items()]
    print(*found, sep="\n")
    sys.exit(not all(map(is_shown, found)))
