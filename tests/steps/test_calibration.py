"""The confidence of a calibration: what it guarantees, also where a larger one may lose
what a smaller one does not."""

import keras
import numpy as np
import pytest

import keras_ratesnn as rsnn
from keras_ratesnn._steps.conformal import largest_allowed, scores
from keras_ratesnn._steps.until_sure import confidence_for

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


def test_a_score_is_the_largest_threshold_that_loses_the_answer():
    random = np.random.default_rng(0)
    certainty, right, _ = drawn(random, 60)
    # Equal certainties, and samples that end early.
    certainty, last = np.round(certainty, 1), random.integers(1, T + 1, 60)
    found = scores(certainty, right, last)
    thresholds = np.unique(
        np.concatenate([certainty.ravel(), certainty.ravel() + 1e-6])
    )
    losses = np.array(
        [lost(certainty, right, last, threshold) for threshold in thresholds]
    )
    expected = np.where(losses, thresholds[:, None], -np.inf).max(axis=0)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).sum() > 5
    is_monotone = [
        np.all(np.diff(losses[:, sample].astype(int)) <= 0) for sample in range(60)
    ]
    assert not all(is_monotone)


def test_the_guarantee_holds_where_the_loss_is_not_monotone():
    random, error, rates, of_smallest = np.random.default_rng(1), 0.1, [], []
    thresholds = np.linspace(0.3, 1.01, 60)
    for _ in range(500):
        calibration, test = drawn(random, 19), drawn(random, 200)
        confidence = confidence_for(*calibration, error)
        rates.append(lost(*test, confidence if confidence < 1 else np.inf).mean())
        # The smallest threshold that loses few enough of the calibration samples: by
        # chance, where the loss is not monotone.
        smallest = next(
            threshold
            for threshold in thresholds
            if lost(*calibration, threshold).mean() <= error
        )
        of_smallest.append(lost(*test, smallest).mean())
    assert 0.8 * error < np.mean(rates) <= error
    assert np.mean(of_smallest) > error + 2 * np.std(of_smallest) / np.sqrt(500)


def test_the_rank_is_that_of_the_decimal_number():
    found = np.arange(99.0)
    # ceil(100 · 0.98) = 98, although 100 · (1 − 0.02) is more in floats.
    assert largest_allowed(found, 0.02) == 97
    assert largest_allowed(found, 0.01) == 98
    with pytest.raises(ValueError, match="Pass at least 199 samples"):
        largest_allowed(found, 0.005)
    for error in (0, 1, -0.5):
        with pytest.raises(ValueError, match="`error` must be > 0 and < 1"):
            largest_allowed(found, error)


@pytest.fixture(scope="module")
def digits():
    images = np.random.default_rng(0).uniform(0, 16, (60, 8, 8, 1)).astype("float32")
    model = rsnn.models.load_pretrained("digits")
    return model, images, np.random.default_rng(1).integers(0, 10, 60)


def test_a_model_is_calibrated_by_what_it_answers(digits):
    model, images, labels = digits
    found = rsnn.analysis.accuracy_until_sure(model, images, labels, batch_size=16)
    confidence = rsnn.calibrate_confidence(model, images, labels, error=0.05)
    assert confidence == found.confidence_for(0.05)
    one_hot = keras.utils.to_categorical(labels, 10)
    assert rsnn.calibrate_confidence(model, images, one_hot, error=0.05) == confidence
    for chosen in (0.0, 0.5, confidence, 1.0):
        outputs, steps = rsnn.predict_until_sure(model, images, chosen)
        measured = found.at(chosen)
        assert measured.mean_steps == steps.mean()
        assert measured.accuracy == (outputs.argmax(axis=1) == labels).mean()
        in_the_end = model.predict(images, verbose=0).argmax(axis=1) == labels
        assert measured.lost == (in_the_end & (outputs.argmax(axis=1) != labels)).mean()
    assert found.at(1.0).lost == 0
    assert found.of(np.arange(10)).at(0.0).mean_steps == 1


def test_the_figure_has_the_curve_and_a_point_for_each_number_of_steps(digits):
    model, images, labels = digits
    (axes,) = rsnn.analysis.accuracy_until_sure(model, images, labels).plot().axes
    curve, *_ = axes.lines
    assert (curve.get_xdata().min(), curve.get_xdata().max()) == (1, model.timesteps)
    (points,) = axes.containers
    assert list(points.lines[0].get_xdata()) == list(range(1, model.timesteps + 1))


def test_labels_that_do_not_fit_are_an_error(digits):
    model, images, labels = digits
    with pytest.raises(ValueError, match="`y` must be an array of numbers"):
        rsnn.calibrate_confidence(model, images, np.array(["name"] * 60))
    with pytest.raises(ValueError, match=r"`y` must be class indices of shape \(60,\)"):
        rsnn.calibrate_confidence(model, images, labels[:50])
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 9"):
        rsnn.calibrate_confidence(model, images, labels + 1)
    with pytest.raises(ValueError, match="Pass at least 99 samples"):
        rsnn.calibrate_confidence(model, images, labels, error=0.01)
