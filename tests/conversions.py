"""What `spikify` makes of the networks of keras-cv and KerasHub: a table, which
docs/tasks.md shows.

    python tests/conversions.py keras_cv
    python tests/conversions.py keras_hub  # KerasHub must be installed

prints the rows and fails if the page has others. All networks are made with explicit
arguments, small and with random weights: nothing is downloaded. KerasHub's tasks are
also compiled, fitted, saved and loaded.
"""

import collections
import functools
import pathlib
import sys
import tempfile
import textwrap

import keras
import numpy as np

from keras_ratesnn import spikify

SHAPE = (64, 64, 3)
EFFICIENTNET = {
    "input_shape": SHAPE,
    "stackwise_kernel_sizes": [3, 3],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [32, 16],
    "stackwise_output_filters": [16, 24],
    "stackwise_expansion_ratios": [1, 6],
    "stackwise_strides": [1, 2],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
}
VIT = {
    "image_shape": SHAPE,
    "patch_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
}


def _keras_cv():
    from keras_cv import models

    images = {"include_rescaling": False, "input_shape": SHAPE}
    dark_net = {
        "stackwise_channels": [16, 24, 32, 48],
        "stackwise_depth": [1, 1, 1, 1],
        **images,
    }

    def resnet():
        return models.ResNetBackbone(
            stackwise_filters=[8, 16, 24, 32],
            stackwise_blocks=[2, 2, 2, 2],
            stackwise_strides=[1, 2, 2, 2],
            **images,
        )

    def yolo():
        return models.YOLOV8Backbone(**dark_net)

    return {
        "ResNetBackbone": resnet,
        "DenseNetBackbone": lambda: models.DenseNetBackbone(
            stackwise_num_repeats=[2, 2, 2, 2], growth_rate=8, **images
        ),
        "YOLOV8Backbone": yolo,
        "CSPDarkNetBackbone": lambda: models.CSPDarkNetBackbone(
            use_depthwise=False, **dark_net
        ),
        "EfficientNetV1Backbone": lambda: models.EfficientNetV1Backbone(
            include_rescaling=False,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            **EFFICIENTNET,
        ),
        "YOLOV8Detector": lambda: models.YOLOV8Detector(
            backbone=yolo(), num_classes=10, bounding_box_format="xyxy", fpn_depth=1
        ),
        "RetinaNet": lambda: models.RetinaNet(
            backbone=resnet(), num_classes=10, bounding_box_format="xyxy"
        ),
        "DeepLabV3Plus": lambda: models.DeepLabV3Plus(
            backbone=resnet(), num_classes=10
        ),
        "ViTDetBackbone": lambda: models.ViTDetBackbone(
            embed_dim=16,
            **images,
            depth=2,
            mlp_dim=32,
            num_heads=2,
            out_chans=8,
            window_size=2,
            global_attention_indices=[1],
        ),
        "MiTBackbone": lambda: models.MiTBackbone(
            depths=[1, 1, 1, 1], embedding_dims=[8, 16, 20, 16], **images
        ),
        "VideoSwinBackbone": lambda: models.VideoSwinBackbone(
            include_rescaling=False,
            input_shape=(4, 32, 32, 3),
            embed_dim=12,
            patch_size=[2, 4, 4],
            window_size=[2, 4, 4],
            depths=[1, 1],
            num_heads=[2, 2],
        ),
    }


def _keras_hub():
    from keras_hub import models

    def resnet(stages=2):
        return models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64] * stages,
            stackwise_num_blocks=[2] * stages,
            stackwise_num_strides=[1] + [2] * (stages - 1),
            block_type="basic_block",
            image_shape=SHAPE,
        )

    def vit():
        return models.ViTBackbone(mlp_dim=32, **VIT)

    def efficientnet():
        return models.EfficientNetBackbone(
            stackwise_width_coefficients=[1.0, 1.0],
            stackwise_depth_coefficients=[1.0, 1.0],
            stackwise_block_types=["v1", "v1"],
            stackwise_force_input_filters=[0, 0],
            stackwise_nores_option=[False, False],
            **EFFICIENTNET,
        )

    def classifier():
        converter = models.ResNetImageClassifierPreprocessor.image_converter_cls(
            image_size=SHAPE[:2], scale=1 / 255
        )
        preprocessor = models.ResNetImageClassifierPreprocessor(converter)
        return models.ResNetImageClassifier(
            backbone=resnet(), num_classes=3, preprocessor=preprocessor
        )

    def segmenter(image_shape):
        backbone = models.DeepLabV3Backbone(
            image_encoder=resnet(),
            spatial_pyramid_pooling_key="P3",
            low_level_feature_key="P2",
            upsampling_size=2,
            dilation_rates=[1, 2],
            projection_filters=8,
            image_shape=image_shape,
        )
        return models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3)

    def detector():
        backbone = models.RetinaNetBackbone(
            image_encoder=resnet(stages=4), min_level=3, max_level=5, use_p5=False
        )
        return models.RetinaNetObjectDetector(
            backbone=backbone,
            num_classes=3,
            bounding_box_format="xyxy",
            pre_logits_num_conv_layers=1,
        )

    def d_fine():
        encoder = models.HGNetV2Backbone(
            depths=[1, 1, 1, 1],
            embedding_size=8,
            hidden_sizes=[16, 16, 32, 32],
            stem_channels=[3, 8, 8],
            hidden_act="relu",
            use_learnable_affine_block=True,
            stackwise_stage_filters=[
                [8, 8, 16, 1, 3, 3],
                [16, 8, 16, 1, 3, 3],
                [16, 8, 32, 1, 3, 5],
                [32, 16, 32, 1, 3, 5],
            ],
            apply_downsample=[False, True, True, True],
            use_lightweight_conv_block=[False, False, True, True],
            image_shape=SHAPE,
            out_features=["stage3", "stage4"],
        )
        backbone = models.DFineBackbone(
            backbone=encoder,
            decoder_in_channels=[16, 16],
            encoder_hidden_dim=16,
            num_labels=3,
            num_denoising=0,
            learn_initial_query=False,
            num_queries=5,
            anchor_image_size=SHAPE[:2],
            feat_strides=[16, 32],
            num_feature_levels=2,
            hidden_dim=16,
            encoder_in_channels=[32, 32],
            encode_proj_layers=[1],
            num_attention_heads=2,
            encoder_ffn_dim=32,
            num_encoder_layers=1,
            hidden_expansion=0.5,
            depth_multiplier=0.5,
            eval_idx=-1,
            num_decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            decoder_n_points=[2, 2],
            lqe_hidden_dim=8,
            num_lqe_layers=2,
            out_features=["stage3", "stage4"],
            image_shape=SHAPE,
        )
        return models.DFineObjectDetector(
            backbone=backbone, num_classes=3, bounding_box_format="xyxy"
        )

    return {
        "ResNetBackbone": resnet,
        "ViTBackbone": vit,
        "EfficientNetBackbone": efficientnet,
        "ResNetImageClassifier": classifier,
        "ViTImageClassifier": lambda: models.ViTImageClassifier(
            backbone=vit(), num_classes=3
        ),
        "EfficientNetImageClassifier": lambda: models.EfficientNetImageClassifier(
            backbone=efficientnet(), num_classes=3
        ),
        "DeepLabV3ImageSegmenter": lambda: segmenter(SHAPE),
        "DeepLabV3ImageSegmenter, any size": lambda: segmenter((None, None, 3)),
        "RetinaNetObjectDetector": detector,
        "DFineObjectDetector": d_fine,
        "ViTDetBackbone": lambda: models.ViTDetBackbone(
            hidden_size=16,
            num_layers=2,
            intermediate_dim=32,
            num_heads=2,
            global_attention_layer_indices=[1],
            image_shape=SHAPE,
            num_output_channels=8,
            window_size=2,
        ),
        "DeiTBackbone": lambda: models.DeiTBackbone(intermediate_dim=32, **VIT),
        "MiTBackbone": lambda: models.MiTBackbone(
            layerwise_depths=[1, 1],
            num_layers=2,
            layerwise_num_heads=[1, 2],
            layerwise_sr_ratios=[2, 1],
            max_drop_path_rate=0.1,
            layerwise_patch_sizes=[7, 3],
            layerwise_strides=[4, 2],
            hidden_dims=[8, 16],
            image_shape=SHAPE,
        ),
    }


LIBRARIES = {"keras_cv": ("keras-cv", _keras_cv), "keras_hub": ("KerasHub", _keras_hub)}


def networks(library):
    """Dict of the names of the networks of a library to functions that make them."""
    title, make = LIBRARIES[library]
    return {f"{title} {name}": network for name, network in make().items()}


def converted(network):
    """The spiking model of a network, or the error of a network that is refused."""
    try:
        return spikify(network, timesteps=2, verbose=False)
    except ValueError as error:
        return error


def row(name, model):
    """The row of the table for what `converted` returns."""
    if isinstance(model, ValueError):
        lines = [line.strip() for line in str(model).splitlines()]
        _, _, why = "; ".join(lines).partition("Received: ")
        why = why.partition(". Give ")[0].partition("; What is inside")[0]
        why = why.rpartition("became neurons.; ")[-1]
        return f"| {name} | refused | {_short(why)} |"
    report = model.spikify_report
    reasons = [(change.activation, change.reason) for change in report.kept]
    text = "; ".join(
        f"{count} {activation} ({reason})"
        for (activation, reason), count in sorted(collections.Counter(reasons).items())
    )
    return f"| {name} | {len(report.replaced)} | {_short(text or 'none')} |"


def _short(why):
    """A reason of one line: messages of other libraries go on."""
    return textwrap.shorten(why, 128, placeholder=" …")


def is_shown(row):
    """Whether docs/tasks.md has a row."""
    page = pathlib.Path(__file__).parents[1] / "docs" / "tasks.md"
    return row in page.read_text().splitlines()


def check_task(model):
    """Fits, saves and loads a task of KerasHub with its default loss; the loaded one
    predicts the same."""
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype("float32")
    # What is fastest; and on TensorFlow the decoder of KerasHub's detector cannot be
    # compiled, in its ordinary network either.
    model.compile(run_eagerly=keras.backend.backend() != "jax")
    model.fit(images, _labels(model), batch_size=2, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.keras")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
    expected = model.predict(images, batch_size=2, verbose=0)
    outputs = loaded.predict(images, batch_size=2, verbose=0)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    keras.tree.map_structure(close, outputs, expected)


def _labels(model):
    kind = type(model).__name__
    if kind.endswith("ObjectDetector"):
        return {
            "boxes": np.full((3, 1, 4), [[8.0, 8.0, 40.0, 48.0]], "float32"),
            "labels": np.ones((3, 1), "int32"),
        }
    if kind.endswith("Segmenter"):
        return keras.utils.to_categorical(np.ones((3, 64, 64)), 3)
    return np.arange(3)


if __name__ == "__main__":
    rows = []
    for name, make in networks(sys.argv[1]).items():
        model = converted(make())
        rows.append(row(name, model))
        print(rows[-1], flush=True)
        if hasattr(model, "preprocessor"):
            check_task(model)
    sys.exit(not all(map(is_shown, rows)))
