"""TimestepSchedule: another number of time steps in the first epochs. What it shares
with RandomTimesteps is tested there."""

import keras
import pytest
from helpers import compiled, data, spiking

import keras_ratesnn as rsnn
from keras_ratesnn.callbacks import TimestepSchedule

X, Y = data(20)


class Seen(keras.callbacks.Callback):
    """The time steps of the model in each batch."""

    def __init__(self):
        super().__init__()
        self.training, self.testing = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.training.append(self.model.timesteps)

    def on_test_batch_begin(self, batch, logs=None):
        self.testing.append(self.model.timesteps)


@pytest.mark.parametrize("first", [0, 2], ids=["from the start", "resumed"])
def test_each_epoch_is_trained_with_its_number_and_tested_with_that_of_the_model(first):
    model, seen = compiled(spiking()), Seen()
    callbacks = [TimestepSchedule([1, 3], [1, 2, 5]), seen]
    arguments = {
        "validation_data": (X, Y),
        "batch_size": 20,
        "initial_epoch": first,
        "verbose": 0,
        "callbacks": callbacks,
    }
    model.fit(X, Y, epochs=4, **arguments)
    assert seen.training == [1, 2, 2, 5][first:]
    assert set(seen.testing) == {3}
    assert model.timesteps == 3


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (([0], [1, 4]), ValueError, "`boundaries` must be 1 or more"),
        (
            ([2, 2], [1, 2, 4]),
            ValueError,
            r"`boundaries` must grow. Received: boundaries=\[2, 2\]",
        ),
        (([2.5], [1, 4]), TypeError, "`boundaries` must be an integer"),
        (
            (2, [1, 4]),
            TypeError,
            "`boundaries` must be a list or tuple of integers. Received: boundaries=2 "
            "of type int",
        ),
        (([2], [0, 4]), ValueError, "`values` must be 1 or more"),
        (
            ([2], [4]),
            ValueError,
            "`values` must have one number of time steps more than `boundaries`",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(arguments, kind, said):
    with pytest.raises(kind, match=said):
        TimestepSchedule(*arguments)


def test_a_number_that_cannot_be_trained_is_an_error_before_training():
    model = compiled(spiking(gradient=rsnn.gradients.Rate(windows=2), timesteps=4))
    with pytest.raises(
        ValueError,
        match=r"(?s)`values` of TimestepSchedule must be.*values=\[1, 4\].*`windows`",
    ):
        model.fit(X, Y, verbose=0, callbacks=[TimestepSchedule([1], [1, 4])])
