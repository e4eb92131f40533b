"""What a rate can learn of time: a data set where only the order of spikes tells, and
recurrent neurons. Of docs/guide.md."""

import numpy as np
import pytest

from keras_ratesnn import gradients
from recipes import order, recurrence

pytestmark = pytest.mark.runs_once

DELAYS = "`Delay(3)` before it"


def test_every_channel_has_the_same_rate_in_both_classes():
    x, y = order.order_in_time()
    np.testing.assert_array_equal(
        x[y == 0].mean(axis=(0, 1)), x[y == 1].mean(axis=(0, 1))
    )


@pytest.mark.parametrize("seed", range(2))
def test_one_rate_is_at_chance_where_only_the_order_of_spikes_tells(seed):
    assert order.accuracy(DELAYS, gradients.Rate(), seed, epochs=20) == 0.5


@pytest.mark.parametrize(
    ("gradient", "seed"),
    [
        (gradients.BPTT(), 0),
        (gradients.BPTT(), 1),
        (gradients.Rate(windows=order.T), 2),
    ],
    ids=str,
)
def test_windows_of_one_step_and_bptt_learn_the_order(gradient, seed):
    assert order.accuracy(DELAYS, gradient, seed) >= 0.95


@pytest.mark.on_each_backend
def test_bptt_learns_the_order_on_every_backend():
    # The seed with which a blur that remains in training costs four of the 32 samples
    # in inference.
    assert order.accuracy(DELAYS, gradients.BPTT(), seed=2) >= 0.95


def test_the_command_prints_the_table_of_the_guide(capsys, monkeypatch):
    monkeypatch.setattr(order, "accuracy", lambda network, gradient, seed: seed / 2)
    assert order.main(["--seeds", "3"]) == 0
    heading, _, *rows = capsys.readouterr().out.splitlines()
    assert heading.endswith('| `Rate(windows=8)`, T | `"bptt"` |')
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {name}" for name in order.NETWORKS
    ]
    assert all(row.count("0.00 0.50 1.00") == len(order.METHODS) for row in rows)


def test_the_gradient_of_recurrent_neurons_is_compared_with_bptt(capsys, monkeypatch):
    np.testing.assert_allclose(recurrence.cosines(4, 4, seed=0), 1.0, atol=1e-5)
    assert np.all(recurrence.cosines(4, 1, seed=0) < 0.99)
    monkeypatch.setattr(
        recurrence,
        "cosines",
        lambda timesteps, windows, seed: np.array([0.5 + seed, 0.25]),
    )
    assert recurrence.main(["--seeds", "2"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "| 10 | 10 | 0.50 to 1.50 | 0.25 to 0.25 |"
    )
