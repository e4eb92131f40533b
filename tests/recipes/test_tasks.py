"""Recipes of detection and segmentation: their data, scores and runs."""

import functools
import json
import operator

import keras
import numpy as np
import pytest
from keras import ops
from made_scenes import write_coco
from numpy.testing import assert_allclose, assert_array_equal

from recipes import evaluate
from recipes.data import coco, digits, scenes
from recipes.tasks import detection, segmentation
from tests.recipes.recipe_runs import stopped, trained

pytestmark = pytest.mark.runs_once


def test_scenes_are_the_same_for_everyone():
    data = digits.load()
    images, boxes, classes, masks = scenes.made(
        data.train_images, data.train_labels, 40, seed=3
    )
    means = [array.mean(dtype="float64") for array in (images, boxes, classes, masks)]
    assert_allclose(means, [54.054700, 22.415625, 3.0375, 0.924329], 1e-6)
    for scene in np.flatnonzero((classes >= 0).sum(axis=1) == 1):
        rows, columns = np.nonzero(masks[scene])
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert tuple(boxes[scene, 0]) == edges


def test_coco_images_are_resized_with_their_boxes(tmp_path):
    data = coco.load(write_coco(tmp_path), 32)
    assert data.class_names == ("dark", "light")
    assert data.train_images.shape == (3, 32, 32, 3)
    labels = data.train_labels
    assert_array_equal(labels["classes"].max(axis=1), [0, 1, 0])
    sides = [(40, 60), (64, 64), (30, 20)]
    for image, boxes, (height, width) in zip(
        data.train_images, labels["boxes"], sides, strict=True
    ):
        edges = np.array([10 / width, 5 / height, 20 / width, 15 / height]) * 32
        assert_allclose(boxes[0], edges, rtol=1e-6)
        # The middle of the box is bright, a corner of the image is black.
        column, row = edges.reshape(2, 2).mean(axis=0).astype(int)
        assert image[row, column].min() >= 90 > 10 > image[0, 0].max()
    # The annotations of a crowd and of an empty box are padding.
    assert (labels["boxes"][:, 1:] == -1).all()


def _put(*keys, value):
    """A change of an annotation file: what is at the keys becomes a value."""

    def change(content):
        functools.reduce(operator.getitem, keys[:-1], content)[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _put("categories", value=None),
            r"train\.json is damaged or of another format",
        ),
        (
            _put("images", 1, "file_name", value=None),
            "the image of its entry .*'id': 11",
        ),
        (_put("annotations", 0, "bbox", value=[1, 2, 3]), "ValueError: not enough"),
        (_put("images", 0, "width", value=9), "the image is of 60 x 40 pixels"),
        (_put("categories", 0, "name", value="other"), "'light' is not in list"),
        (lambda content: content.update(images=[], annotations=[]), "no images"),
    ],
)
def test_the_error_says_what_is_wrong_with_annotations(change, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        coco.load(write_coco(tmp_path, change), 32)


def test_the_error_names_damaged_and_missing_files(tmp_path):
    folder = write_coco(tmp_path)
    for name, content, said in (
        ("train/0.png", b"no picture", r"0\.png.* damaged"),
        ("train.json", b"{", r"train\.json is damaged"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=said):
            coco.load(folder, 32)
    (folder / "train.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*train\.json"):
        coco.load(folder, 32)


def test_average_precision_is_that_of_known_cases():
    boxes = np.array([[[0, 0, 10, 10.0], [20, 20, 30, 40]]] * 2)
    classes = np.array([[0, 1.0], [0, -1]])
    labels = {"boxes": boxes, "classes": classes}
    confidence = np.full((2, 2), 0.9)
    # An intersection over union of 0.8 counts for 7 of the 10 thresholds.
    moved = boxes + np.array([0, 0, 0, 2.5]) * (classes == 0)[..., np.newaxis]
    for change, expected in (
        ({}, (1, 1)),
        ({"boxes": moved}, (1, (0.7 + 1) / 2)),
        ({"classes": np.array([[1, 1.0], [0, -1]])}, (0.5, 0.5)),
        ({"classes": np.full((2, 2), -1.0)}, (0, 0)),
    ):
        predictions = {**labels, "confidence": confidence, **change}
        scores = detection.mean_average_precision(labels, predictions, 2)
        assert (scores["map_50"], scores["map"]) == pytest.approx(expected, abs=0.01)


def small_detector(kind):
    import keras_cv

    sizes = [2] * 4, [1] * 4, True, "relu", (32, 32, 1)
    backbone = keras_cv.models.YOLOV8Backbone(*sizes)
    return kind(backbone, num_classes=3, bounding_box_format="xyxy", fpn_depth=1)


def test_the_detector_has_keras_cvs_loss_and_no_activations_but_relus():
    import keras_cv

    from recipes.tasks.yolo import ReLUDetector

    detector = small_detector(ReLUDetector)
    plain = small_detector(keras_cv.models.YOLOV8Detector)
    config = keras.saving.serialize_keras_object(detector)
    for model in (detector, keras.saving.deserialize_keras_object(config)):
        layers = [
            layer
            for layer in model.layers
            if isinstance(layer, keras.layers.Activation)
        ]
        activations = {layer.activation for layer in layers}
        assert activations == {keras.activations.relu, keras.activations.linear}
    for model in (detector, plain):
        model.compile(box_loss="ciou", classification_loss="binary_crossentropy")
    random = np.random.default_rng(0)
    images = ops.zeros((2, 32, 32, 1))
    corners = [[[2, 2, 20, 20]], [[8, 4, 30, 28]]]
    labels = {
        "boxes": ops.convert_to_tensor(corners, "float32"),
        "classes": ops.convert_to_tensor([[0], [2]], "float32"),
    }
    boxes, logits = (
        ops.convert_to_tensor(random.normal(size=(2, 21, size)), "float32")
        for size in (64, 3)
    )
    scores = {"boxes": boxes, "classes": ops.sigmoid(logits)}
    outputs = {"boxes": boxes, "classes": logits}
    loss = detector.compute_loss(images, labels, outputs)
    assert float(loss) == float(plain.compute_loss(images, labels, scores))


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "TRAIN_SCENES", 24)
    monkeypatch.setattr(scenes, "TEST_SCENES", 8)


TINY = ("timesteps=1", "batch_size=8", "epochs=2", "width=0.1", "jit_compile=False")


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_the_mean_iou_is_that_of_keras():
    random = np.random.default_rng(0)
    kinds = segmentation.MeanIoU, keras.metrics.MeanIoU
    metrics = [kind(3, sparse_y_pred=False) for kind in kinds]
    for _ in range(2):
        labels = random.integers(0, 3, (2, 4, 4))
        logits = random.normal(size=(2, 4, 4, 3)).astype("float32")
        for metric in metrics:
            metric.update_state(labels, logits)
    ours, theirs = (float(metric.result()) for metric in metrics)
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning")
def test_a_segmentation_run_compares_with_the_ordinary_network_and_resumes(
    few_scenes, tmp_path, capsys
):
    folder, run = tmp_path / "run", ("digits_segmentation", "--set", *TINY)
    stopped(folder, 1, *run)
    path = folder / "ordinary" / "result.json"
    ordinary = path.read_text()
    record = trained(folder, *run)
    assert "resumes after 1 epochs" in capsys.readouterr().out
    assert path.read_text() == ordinary
    comparison, score = record["comparison"], record["test_mean_iou"]
    assert (record["score"], len(record["curve"]["loss"])) == ("mean_iou", 2)
    assert comparison["spiking"].keys() == {"1", "2", "4"}
    assert comparison["spiking"]["1"]["mean_iou"] == pytest.approx(score, abs=1e-6)
    expected = json.loads(ordinary)["test_mean_iou"]
    assert comparison["ordinary"]["mean_iou"] == expected
    assert (folder / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate.main([str(folder)]) == 0
    assert f"test mean iou: {score:.4f}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("ordinary", ["beside", "first"])
def test_a_detection_run_on_coco_annotations(ordinary, tmp_path, capsys):
    data = ("--data-dir", str(write_coco(tmp_path / "data")))
    settings = ("windows=1", "batch_size=3", f"ordinary={ordinary}", "image_side=32")
    run = ("digits_detection", *data, "--set", *TINY, *settings)
    whole = trained(tmp_path / "whole", *run)
    assert whole["comparison"]["ordinary"].keys() >= {"loss", "map", "map_50"}
    assert (tmp_path / "whole" / "predictions.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate.main([str(tmp_path / "whole"), *data]) == 0
    assert f"test map 50: {whole['test_map_50']:.4f}" in capsys.readouterr().out

    stopped(tmp_path / "stopped", 1, *run)
    assert (
        trained(tmp_path / "stopped", *run)["curve"]["loss"] == whole["curve"]["loss"]
    )
