"""Recipes of detection and segmentation: their data, scores and runs."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers import assert_close
from made_scenes import write_coco

from recipes import evaluate
from recipes.data import coco, digits, scenes
from recipes.tasks import detection, segmentation
from tests.recipes.recipe_runs import error_of, stopped, trained

pytestmark = pytest.mark.runs_once


@pytest.fixture(scope="module")
def made():
    found = digits.load()
    return scenes.made(found.train_images, found.train_labels, 40, seed=3)


def test_scenes_depend_only_on_the_seed(made):
    found = digits.load()
    assert_close(
        made, scenes.made(found.train_images, found.train_labels, 40, seed=3), rtol=0
    )
    other, *_ = scenes.made(found.train_images, found.train_labels, 40, seed=4)
    assert not np.array_equal(made[0], other)


def test_a_box_holds_the_pixels_of_its_digit(made):
    images, boxes, classes, masks = made
    assert images.shape == (40, 64, 64, 1)
    counts = (classes >= 0).sum(axis=1)
    assert set(counts) == {1, 2, 3, 4}
    for scene in np.flatnonzero(counts == 1):
        rows, columns = np.nonzero(masks[scene] == classes[scene, 0] + 1)
        assert rows.size == np.count_nonzero(masks[scene])
        left, top, right, bottom = boxes[scene, 0]
        assert (left, top, right - 1, bottom - 1) == (
            columns.min(),
            rows.min(),
            columns.max(),
            rows.max(),
        )
    assert (boxes[classes < 0] == -1).all()


def test_coco_images_are_resized_with_their_boxes(tmp_path):
    data = coco.load(write_coco(tmp_path), 32)
    assert data.class_names == ("dark", "light")
    assert data.train_images.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(data.train_labels["classes"].max(axis=1), [0, 1, 0])
    for row, (height, width) in enumerate(((40, 60), (64, 64), (30, 20))):
        expected = np.array([10 / width, 5 / height, 20 / width, 15 / height]) * 32
        np.testing.assert_allclose(
            data.train_labels["boxes"][row][0], expected, rtol=1e-6
        )
        # The middle of the box is bright, a corner of the image is black.
        middle = data.train_images[row][
            int(expected[1::2].mean()), int(expected[::2].mean())
        ]
        assert (middle >= 90).all()
        assert (data.train_images[row][0, 0] < 10).all()
    # The annotations of a crowd and of an empty box are padding.
    assert (data.train_labels["boxes"][:, 1:] == -1).all()


def _put(*keys, value):
    """A change of an annotation file: what is at the keys becomes a value."""

    def change(content):
        *places, last = keys
        for place in places:
            content = content[place]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _put("categories", value=None),
            "train.json must have 'categories' of type list",
        ),
        (
            _put("images", 1, "file_name", value=None),
            "Entry 1 of 'images' in .*'file_n",
        ),
        (_put("annotations", 0, "image_id", value=99), "Entry 0 .* image_id 99"),
        (_put("annotations", 2, "category_id", value=1), "Entry 2 .* category_id 1"),
        (_put("annotations", 0, "bbox", value=[1, 2, 3]), r"It has \[1, 2, 3\]"),
        (_put("annotations", 0, "bbox", value=[1, 2, 3, -4]), "four numbers"),
        (
            _put("images", 0, "width", value=9),
            "the width 60, but the annotations say 9",
        ),
        (_put("images", 0, "file_name", value="no.png"), "There is no image .*no.png"),
        (_put("categories", 0, "name", value="other"), "not in train.json: light"),
        (
            lambda content: content.update(images=[], annotations=[]),
            "at least one image",
        ),
    ],
)
def test_the_error_says_what_is_wrong_with_annotations(change, said, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        coco.load(write_coco(tmp_path, change), 32)


def test_the_error_names_damaged_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*train\.json"):
        coco.load(tmp_path, 32)
    folder = write_coco(tmp_path / "data")
    (folder / "train" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0\.png is damaged"):
        coco.load(folder, 32)
    (folder / "train.json").write_text("{")
    with pytest.raises(ValueError, match=r"train\.json is damaged"):
        coco.load(folder, 32)


def test_average_precision_is_that_of_known_cases():
    labels = {
        "boxes": np.array([[[0, 0, 10, 10.0], [20, 20, 30, 40]]] * 2),
        "classes": np.array([[0, 1.0], [0, -1]]),
    }
    right = {**labels, "confidence": np.full((2, 2), 0.9)}
    assert detection.mean_average_precision(labels, right, 2) == pytest.approx(
        {"map_50": 1, "map": 1}
    )
    # An intersection over union of 0.8 counts for 7 of the 10 thresholds.
    shifted = {
        **right,
        "boxes": labels["boxes"]
        + np.array([0, 0, 0, 2.5]) * (labels["classes"] == 0)[..., np.newaxis],
    }
    assert detection.mean_average_precision(labels, shifted, 2) == pytest.approx(
        {"map_50": 1, "map": (0.7 + 1) / 2}
    )
    wrong = {**right, "classes": np.array([[1, 1.0], [0, -1]])}
    assert detection.mean_average_precision(labels, wrong, 2)["map_50"] < 1
    nothing = {**right, "classes": np.full((2, 2), -1.0)}
    assert detection.mean_average_precision(labels, nothing, 2) == {
        "map_50": 0,
        "map": 0,
    }


def test_the_detector_has_keras_cvs_loss_and_decoding_and_no_activations_but_relus():
    import keras_cv

    from recipes.tasks.yolo import ReLUDetector

    def built(kind):
        backbone = keras_cv.models.YOLOV8Backbone(
            [2] * 4, [1] * 4, True, "relu", (32, 32, 1)
        )
        return kind(backbone, num_classes=3, bounding_box_format="xyxy", fpn_depth=1)

    detector, plain = built(ReLUDetector), built(keras_cv.models.YOLOV8Detector)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(detector)
    )
    for model in (detector, again):
        activations = {
            layer.activation
            for layer in model.layers
            if isinstance(layer, keras.layers.Activation)
        }
        assert activations == {keras.activations.relu, keras.activations.linear}

    for model in (detector, plain):
        model.compile(box_loss="ciou", classification_loss="binary_crossentropy")
    generator = np.random.default_rng(0)
    images = keras.ops.zeros((2, 32, 32, 1))
    labels = {
        "boxes": np.array([[[2, 2, 20, 20]], [[8, 4, 30, 28]]], "float32"),
        "classes": np.array([[0], [2]], "float32"),
    }
    labels = {key: keras.ops.convert_to_tensor(value) for key, value in labels.items()}
    boxes, logits = (
        keras.ops.convert_to_tensor(
            generator.normal(size=(2, 21, size)).astype("float32")
        )
        for size in (64, 3)
    )
    scores = {"boxes": boxes, "classes": keras.ops.sigmoid(logits)}
    outputs = {"boxes": boxes, "classes": logits}
    assert float(detector.compute_loss(images, labels, outputs)) == float(
        plain.compute_loss(images, labels, scores)
    )
    for key, value in plain.decode_predictions(scores, images).items():
        found = keras.ops.convert_to_numpy(
            detector.decode_predictions(outputs, images)[key]
        )
        np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(value))


def test_an_untrained_detector_predicts_small_boxes_and_few_objects():
    import keras_cv

    from recipes.tasks.yolo import FIRST_DISTANCE, FIRST_SCORE, ReLUDetector

    backbone = keras_cv.models.YOLOV8Backbone(
        [2] * 4, [1] * 4, True, "relu", (32, 32, 1)
    )
    detector = ReLUDetector(
        backbone, num_classes=3, bounding_box_format="xyxy", fpn_depth=1
    )
    images = keras.ops.zeros((2, 32, 32, 1))
    outputs = detector(images)
    bins = keras.ops.softmax(keras.ops.reshape(outputs["boxes"], (2, 21, 4, 16)))
    distances = keras.ops.convert_to_numpy(
        keras.ops.sum(bins * keras.ops.arange(16, dtype="float32"), axis=-1)
    )
    np.testing.assert_allclose(distances, FIRST_DISTANCE, rtol=0.01)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.sigmoid(outputs["classes"])),
        FIRST_SCORE,
        rtol=1e-3,
    )


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "TRAIN_SCENES", 24)
    monkeypatch.setattr(scenes, "TEST_SCENES", 8)


TINY = ("timesteps=1", "batch_size=8", "epochs=2", "width=0.1", "jit_compile=False")


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_the_mean_iou_is_that_of_keras():
    random = np.random.default_rng(0)
    metrics = [
        made(3, sparse_y_pred=False)
        for made in (segmentation.MeanIoU, keras.metrics.MeanIoU)
    ]
    for _ in range(2):
        labels, logits = (
            random.integers(0, 3, (2, 4, 4)),
            random.normal(size=(2, 4, 4, 3)).astype("float32"),
        )
        for metric in metrics:
            metric.update_state(labels, logits)
    ours, theirs = (float(metric.result()) for metric in metrics)
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_a_segmentation_run_compares_with_the_ordinary_network_and_resumes(
    few_scenes, tmp_path, capsys
):
    run = ("digits_segmentation", "--set", *TINY)
    stopped(tmp_path / "stopped", 1, *run)
    assert (tmp_path / "stopped" / "ordinary" / "result.json").exists()
    # To train it once is enough.
    shutil.copytree(tmp_path / "stopped" / "ordinary", tmp_path / "whole" / "ordinary")
    resumed, whole = (
        trained(tmp_path / "stopped", *run),
        trained(tmp_path / "whole", *run),
    )
    assert "resumes after 1 epochs" in capsys.readouterr().out
    assert resumed["curve"]["loss"] == whole["curve"]["loss"]
    assert resumed["comparison"] == whole["comparison"]
    # Killed after the last checkpoints of both networks.
    for result in (tmp_path / "stopped").rglob("result.json"):
        result.unlink()
    assert trained(tmp_path / "stopped", *run) == resumed
    assert whole["score"] == "mean_iou"
    assert whole["comparison"]["spiking"].keys() == {"1", "2", "4"}
    assert whole["comparison"]["spiking"]["1"]["mean_iou"] == pytest.approx(
        whole["test_mean_iou"], abs=1e-6
    )
    ordinary = json.loads((tmp_path / "whole" / "ordinary" / "result.json").read_text())
    assert whole["comparison"]["ordinary"]["mean_iou"] == ordinary["test_mean_iou"]
    assert (tmp_path / "whole" / "predictions.png").read_bytes().startswith(b"\x89PNG")

    assert evaluate.main([str(tmp_path / "whole")]) == 0
    assert f"test mean iou: {whole['test_mean_iou']:.4f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("ordinary", ["beside", "first"])
def test_a_detection_run_on_coco_annotations(ordinary, tmp_path, capsys):
    data = ("--data-dir", str(write_coco(tmp_path / "data")))
    run = ("digits_detection", *data)
    run += (
        "--set",
        *TINY,
        "windows=1",
        "batch_size=3",
        f"ordinary={ordinary}",
        "image_side=32",
    )
    whole = trained(tmp_path / "whole", *run)
    assert whole["comparison"]["ordinary"].keys() >= {"loss", "map", "map_50"}
    assert (tmp_path / "whole" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate.main([str(tmp_path / "whole"), *data]) == 0
    assert f"test map 50: {whole['test_map_50']:.4f}" in capsys.readouterr().out

    stopped(tmp_path / "stopped", 1, *run)
    assert (
        trained(tmp_path / "stopped", *run)["curve"]["loss"] == whole["curve"]["loss"]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
@pytest.mark.parametrize("name", ["digits_detection", "digits_segmentation"])
def test_tasks_are_trained_in_mixed_precision(name, few_scenes, tmp_path):
    settings = ("windows=1", "epochs=1", "precision=mixed_bfloat16")
    record = trained(tmp_path, name, "--set", *TINY, *settings)
    assert np.isfinite(record["curve"]["loss"]).all()
    assert keras.saving.load_model(tmp_path / "last.keras").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "image_side=48"], "`image_side` of scenes is 64"),
        (["--data-dir", "nowhere"], "There is no file nowhere/train.json"),
    ],
)
def test_a_detection_recipe_says_what_it_cannot_do(arguments, said, tmp_path, capsys):
    command = ["digits_detection", "--output", tmp_path / "run", *arguments]
    assert said in error_of(command, capsys)


def test_the_ordinary_network_of_a_classifier_has_no_neurons(tmp_path, capsys):
    run = (
        "digits",
        "--set",
        "ordinary=only",
        "epochs=1",
        "train_images=64",
        "width=0.1",
    )
    assert 0 <= trained(tmp_path, *run)["test_accuracy"] <= 1
    model = keras.saving.load_model(tmp_path / "last.keras")
    assert {layer.name for layer in model.layers if "lif" in layer.name} != set()
    assert all(
        isinstance(layer, keras.layers.ReLU)
        for layer in model.layers
        if "lif" in layer.name
    )
    capsys.readouterr()
    assert evaluate.main([str(tmp_path)]) == 0
    assert "digits, ordinary network, 360 test images" in capsys.readouterr().out
    assert "--timesteps is for spiking networks" in error_of(
        [tmp_path, "--timesteps", "2"], capsys, evaluate.main
    )
