"""The confidence of a calibration: what it guarantees, also where a larger one may lose
what a smaller one does not."""

import keras
import numpy as np
import pytest

import keras_ratesnn as rsnn
from keras_ratesnn import deploy
from keras_ratesnn.analysis import AccuracyUntilSure

pytestmark = pytest.mark.runs_once

T = 4


def lost(certainty, right, last, threshold):
    """Whether stopping with a threshold loses the answer of each sample, by the
    rule."""
    is_sure = (certainty >= threshold) & (np.arange(T) < last[:, None])
    steps = np.where(is_sure.any(axis=1), is_sure.argmax(axis=1), last - 1)
    samples = np.arange(len(last))
    return right[samples, last - 1] & ~right[samples, steps]


def drawn(random, samples):
    """Samples whose answers are worse after the third step than after the second."""
    certainty = random.uniform(0.3, 1, (samples, T))
    right = random.uniform(size=(samples, T)) < np.array([0.8, 0.9, 0.8, 0.97])
    return certainty, right, np.full(samples, T)


def test_the_confidence_is_above_the_scores_of_enough_samples():
    """A score is the largest threshold that loses the answer of a sample."""
    random = np.random.default_rng(0)
    certainty, right, _ = drawn(random, 60)
    # Equal certainties, and samples that end early.
    certainty, last = np.round(certainty, 1), random.integers(1, T + 1, 60)
    thresholds = np.unique([certainty, certainty + 1e-6])
    losses = np.array(
        [lost(certainty, right, last, threshold) for threshold in thresholds]
    )
    is_monotone = np.diff(losses.astype(int), axis=0) <= 0
    assert not is_monotone.all()
    scores = np.sort(np.where(losses, thresholds[:, None], -np.inf).max(axis=0))
    assert np.isfinite(scores).sum() > 5
    answers = AccuracyUntilSure(certainty, right, last)
    for rank, score in enumerate(scores, 1):
        confidence = answers.confidence_for(1 - (rank - 0.5) / 61)
        assert confidence == np.clip(np.nextafter(score, np.inf), 0, 1)


def test_the_rank_is_that_of_the_decimal_number():
    scores = np.arange(99) / 100
    certainty = np.column_stack([scores, np.ones(99)])
    answers = AccuracyUntilSure(certainty, certainty == 1, np.full(99, 2))
    # ceil(100 · 0.98) = 98, although 100 · (1 − 0.02) is more in floats.
    assert answers.confidence_for(0.02) == np.nextafter(scores[97], 1)
    assert answers.confidence_for(0.01) == np.nextafter(scores[98], 1)
    with pytest.raises(ValueError, match="Pass at least 199 samples"):
        answers.confidence_for(0.005)
    with pytest.raises(ValueError, match="`error` must be > 0 and < 1"):
        answers.confidence_for(1)


@pytest.fixture(scope="module")
def digits():
    images = np.random.default_rng(0).uniform(0, 16, (60, 8, 8, 1)).astype("float32")
    model = rsnn.models.load_pretrained("digits")
    return model, images, np.random.default_rng(1).integers(0, 10, 60)


def test_a_model_is_calibrated_by_what_it_answers(digits):
    model, images, labels = digits
    curve = rsnn.analysis.accuracy_until_sure(model, images, labels, batch_size=16)
    confidence = deploy.calibrate_confidence(model, images, labels, error=0.05)
    assert confidence == curve.confidence_for(0.05)
    one_hot = keras.utils.to_categorical(labels, 10)
    assert deploy.calibrate_confidence(model, images, one_hot, error=0.05) == confidence
    is_right_at_last = model.predict(images, verbose=0).argmax(axis=1) == labels
    for chosen in (0.0, 0.5, confidence, 1.0):
        outputs, steps = deploy.predict_until_sure(model, images, chosen)
        is_right = outputs.argmax(axis=1) == labels
        measured = curve.at(chosen)
        assert measured.mean_steps == steps.mean()
        assert measured.accuracy == is_right.mean()
        assert measured.lost == (is_right_at_last & ~is_right).mean()
    assert curve.at(1.0).lost == 0
    assert curve.of(np.arange(10)).at(0.0).mean_steps == 1
    (axes,) = curve.plot().axes
    assert axes.lines[0].get_xdata().max() == model.timesteps


def test_labels_that_do_not_fit_are_an_error(digits):
    model, images, labels = digits
    for y, error, said in (
        (np.array(["name"] * 60), 0.1, "`y` must be an array of numbers"),
        (labels[:50], 0.1, r"`y` must be class indices of shape \(60,\)"),
        (labels + 1, 0.1, "`y` must be labels from 0 to 9"),
        (labels, 0.01, "Pass at least 99 samples"),
    ):
        with pytest.raises(ValueError, match=said):
            deploy.calibrate_confidence(model, images, y, error=error)
