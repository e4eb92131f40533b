"""The temporal probe: it finds whether data of a known kind need time, tells gain from
chance, and resumes."""

import itertools
import types

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.layers import LIF, PSN

pytestmark = pytest.mark.runs_once

T = 3


def order_alone(repeats):
    """Each of two pairs of channels spikes once, one of the pair a step after the
    other; the class says which."""
    x, y = [], []
    for label, *starts in itertools.product((0, 1), range(2), range(2)):
        sample = np.zeros((T, 4), "float32")
        for pair, start in enumerate(starts):
            sample[start, 2 * pair + label] = 1.0
            sample[start + 1, 2 * pair + 1 - label] = 1.0
        x.append(sample)
        y.append(label)
    return np.tile(np.stack(x), (repeats, 1, 1)), np.tile(y, repeats)


def rates_alone(samples, timesteps=4):
    """Spikes at random, in one of two channels more; the class says in which."""
    random = np.random.default_rng(0)
    y = np.arange(samples) % 2
    return (
        random.random((samples, timesteps, 2)) < 0.1 + 0.85 * np.eye(2)[y][:, None]
    ).astype("float32"), y


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


FITTED: list = []
"""What models were trained with, in calls of `fit`: `(timesteps, x)`, with the samples
in the order of their labels."""


@keras.saving.register_keras_serializable("temporal probe")
class Noted(rsnn.SpikingModel):
    interrupted_at = None

    def fit(self, x, y, **kwargs):
        order = np.argsort(y, kind="stable")
        FITTED.append(
            (
                self.timesteps,
                keras.tree.map_structure(lambda leaf: np.asarray(leaf)[order], x),
            )
        )
        if len(FITTED) == Noted.interrupted_at:
            raise KeyboardInterrupt
        return super().fit(x, y, **kwargs)


def compiled(
    inputs, spikes, timesteps, classes=2, learning_rate=0.1, loss=LOSS, **kwargs
):
    model = Noted(
        keras.Model(inputs, layers.Dense(classes)(spikes)), timesteps, **kwargs
    )
    model.compile(keras.optimizers.Adam(learning_rate), loss)
    return model


def maker(
    timesteps=T, units=16, channels=2, neurons=lambda: LIF(0.5), dropout=0.0, **kwargs
):
    def make_model():
        inputs = keras.Input((channels,))
        return compiled(
            inputs,
            layers.Dropout(dropout)(neurons()(layers.Dense(units)(inputs))),
            timesteps,
            **kwargs,
        )

    return make_model


def test_where_only_the_order_tells_windows_or_bptt_are_recommended():
    x, y = order_alone(repeats=16)
    make_model = maker(channels=4, learning_rate=0.2)
    found = analysis.temporal_probe(
        make_model, x, y, (x, y), epochs=4, seeds=2, batch_size=16, verbose=0
    )
    accuracy = {name: values.mean() for name, values in found.accuracy.items()}
    assert accuracy["one-step"] == 0.5
    assert accuracy["shuffled"] < 0.7 < 0.95 < accuracy["bptt"]
    assert found.steps["order of the frames"].low > 0.1
    assert found.recommended.name in ("rate-2", "bptt")
    # One layer of neurons, of which the mean is taken: their order is lost, that of the
    # inputs is not.
    for name in ("rate-1", "rate-2", "bptt"):
        assert_allclose(found.shuffled[name], found.accuracy[name])


def test_where_rates_tell_one_step_of_their_mean_is_enough():
    (x, y), validation = rates_alone(200, 2), rates_alone(401, 2)
    found = analysis.temporal_probe(
        maker(2),
        x,
        y,
        validation,
        epochs=3,
        seeds=2,
        batch_size=64,
        margin=0.05,
        verbose=0,
    )
    assert found.recommended.name == "one-step"
    assert found.recommendation.startswith(
        'Take timesteps=1 on the mean of the frames and gradient="rate": no other twin '
        "is "
    )
    assert found.gain("bptt", over="rate-1").high < 0.05
    # The labels are 0 and 1 in turn.
    assert found.most_frequent.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.on_each_backend
def test_an_interrupted_probe_goes_on_where_it_was(tmp_path, monkeypatch):
    # Of parallel neurons and two steps without frames there are two twins.
    make_model = maker(2, units=3, dropout=0.5, neurons=lambda: PSN(2))
    x, y = rates_alone(24, timesteps=2)
    arguments = {
        "validation_data": (x[:, 0], y),
        "epochs": 2,
        "batch_size": 16,
        "verbose": 0,
        "seeds": 2,
    }

    def probe(**more):
        FITTED.clear()
        try:
            return analysis.temporal_probe(
                make_model, x[:, 0], y, **arguments, **more
            ), len(FITTED)
        except KeyboardInterrupt:
            return None, len(FITTED)

    whole, epochs = probe()
    assert (list(whole.right), epochs) == (["rate-1", "bptt"], 2 * 2 * 2)
    with monkeypatch.context() as patch:
        patch.setattr(Noted, "interrupted_at", 6)
        assert probe(folder=tmp_path) == (None, 6)
    resumed, epochs = probe(folder=tmp_path)
    assert epochs == 3
    for name, right in whole.right.items():
        assert_array_equal(right, resumed.right[name])
        assert_array_equal(whole.earlier[name], resumed.earlier[name])
        assert_array_equal(whole.shuffled[name], resumed.shuffled[name])
    assert probe(folder=tmp_path)[1] == 0


ARGUMENTS = {"epochs": 1, "seeds": 2, "verbose": 0}


def test_a_folder_of_another_budget_network_or_data_is_refused(tmp_path):
    x, y = rates_alone(8, 2)
    x = x[:, 0]
    parallel = {"timesteps": 2, "neurons": lambda: PSN(2)}
    plain = maker(**parallel)

    def probe(make_model=plain, x=x, **changes):
        arguments = {**ARGUMENTS, "validation_data": (x, y), "folder": tmp_path}
        return analysis.temporal_probe(make_model, x, y, **{**arguments, **changes})

    found, more = probe(), probe(margin=0.5, seeds=3)
    assert_array_equal(more.right["bptt"][:2], found.right["bptt"])

    def trained():
        model = maker(**parallel)()
        model.set_weights([weight + 1.0 for weight in model.get_weights()])
        return model

    changes = {
        "epochs=1, now 2": {"epochs": 2},
        "weights=": {"make_model": trained},
        "network=": {"make_model": maker(2, neurons=lambda: LIF(0.25))},
        "compile=": {"make_model": maker(learning_rate=0.2, **parallel)},
        "validation_data=": {"x": 2 * x},
    }
    for changed, arguments in changes.items():
        message = f"`folder` must have .* the same budget.*{changed}.* another folder"
        with pytest.raises(ValueError, match=message):
            probe(**arguments)
    next(tmp_path.glob("bptt-0*")).write_bytes(b"PK")
    message = r"`folder` has a damaged file, .*bptt-0.* Delete it"
    with pytest.raises(ValueError, match=message):
        probe()


def seen(make_model, x, samples, monkeypatch):
    """What the twins that see the mean frame, in one step and in each, and the shuffled
    frames are trained with."""
    FITTED.clear()
    # No later twin is needed.
    monkeypatch.setattr(Noted, "interrupted_at", 3)
    y = np.arange(samples)
    with pytest.raises(KeyboardInterrupt):
        analysis.temporal_probe(make_model, x, y, (x, y), epochs=1, seeds=2, verbose=0)
    (timesteps, mean), (_, at_each_step), (_, shuffled) = FITTED
    assert timesteps == 1
    return mean, at_each_step, shuffled


def test_padding_is_in_no_mean_and_stays_where_it_is(monkeypatch):
    x = np.arange(24, dtype="float32").reshape(3, 4, 2)
    x[0, 2:] = x[1, :1] = np.nan
    make_model = maker(4, mask_value=float("nan"), classes=3)
    found, at_each_step, shuffled = seen(make_model, x, 3, monkeypatch)
    mean = np.stack([x[0, :2].mean(axis=0), x[1, 1:].mean(axis=0), x[2].mean(axis=0)])
    assert_allclose(found, mean)
    counts = np.isfinite(x)
    assert_allclose(at_each_step, np.where(counts, mean[:, None], np.nan))
    assert_array_equal(np.isfinite(shuffled), counts)
    assert not np.array_equal(shuffled, x, equal_nan=True)
    # Whole frames, of the same sample.
    assert_array_equal(np.sort(shuffled, axis=1), np.sort(x, axis=1))
    assert_array_equal(
        shuffled[..., 1] - shuffled[..., 0], np.where(counts[..., 0], 1.0, np.nan)
    )


def test_integer_frames_have_a_mean_and_several_inputs_one_order(monkeypatch):
    def make_model():
        sizes = {"a": 2, "b": 2, "c": 3}
        inputs = [keras.Input((size,), name=name) for name, size in sizes.items()]
        hidden = layers.Dense(4)(layers.Concatenate()(inputs))
        return compiled(inputs, LIF()(hidden), 4, classes=5)

    a = np.random.default_rng(0).integers(0, 250, (5, 4, 2), "uint8")
    x = {"a": a, "b": a + 1, "c": np.zeros((5, 3))}
    mean, _, shuffled = seen(make_model, x, 5, monkeypatch)
    assert_allclose(mean["a"], a.mean(axis=1), rtol=1e-6)
    assert_array_equal(shuffled["a"] + 1, shuffled["b"])
    assert not np.array_equal(shuffled["a"], a)
    assert_array_equal(shuffled["c"], np.zeros((5, 3)))


def ladder(timesteps, in_time):
    """The twins of a network."""
    bptt, rate = rsnn.gradients.BPTT(), rsnn.gradients.Rate
    frames = {"one-step": "mean", "mean": "mean", "shuffled": "shuffled"}
    methods = {"one-step": rate()}
    if in_time:
        methods |= {"mean": bptt, "shuffled": bptt}
    methods["sltt"] = rsnn.gradients.SLTT()
    methods |= {f"rate-{windows}": rate(windows) for windows in (1, 2, 4)}
    methods["bptt"] = bptt
    twins = []
    for name, gradient in methods.items():
        steps = 1 if name == "one-step" else timesteps
        facts = {"frames": frames.get(name, "given"), "timesteps": steps}
        twins.append(types.SimpleNamespace(name=name, gradient=gradient, **facts))
    return tuple(twins)


def result(right, twins, margin=0.01, most_frequent=None, earlier=None):
    """A result of which these samples are right, and were earlier, by the names of
    twins."""
    samples = next(iter(right.values())).shape[1]
    return analysis.TemporalProbe(
        in_time=any(twin.name == "shuffled" for twin in twins),
        twins=twins,
        right=right,
        earlier=earlier or right,
        shuffled={
            twin.name: right[twin.name].mean(axis=1)
            for twin in twins
            if twin.frames == "given" and twin.name in right
        },
        most_frequent=np.zeros(samples) if most_frequent is None else most_frequent,
        margin=margin,
        epochs=3,
        batch_size=32,
        left_out={},
    )


def difference(one, other):
    right = {"bptt": np.asarray(one, "float32"), "sltt": np.asarray(other, "float32")}
    return result(right, ladder(8, in_time=True)).gain("bptt", over="sltt")


def test_the_error_of_a_difference_counts_seeds_and_samples():
    one, other = (
        np.random.default_rng(0).random((2, 3, 40))
        < np.array([0.9, 0.3])[:, None, None]
    )
    gains = one.astype(float) - other
    # By hand, as in a table of two factors without replication.
    of_seeds, of_samples = gains.mean(axis=1, keepdims=True), gains.mean(axis=0)
    squares = 40 * of_seeds.var(ddof=1), 3 * of_samples.var(ddof=1)
    rest = ((gains - of_seeds - of_samples + gains.mean()) ** 2).sum() / (2 * 39)
    gain = difference(one, other)
    assert gain.mean == pytest.approx(gains.mean())
    assert gain.error == pytest.approx(
        np.sqrt((sum(squares) - min(rest, *squares)) / 120)
    )
    assert gain.low < gain.mean < gain.high
    # Equal twins differ by less than two samples or so, whatever the number of seeds.
    equal = difference(np.ones((9, 50)), np.ones((9, 50)))
    assert (equal.mean, equal.error) == (0.0, pytest.approx(1 / 50))
    assert difference(np.ones((2, 2)), np.zeros((2, 2))).high == 1.0


def test_intervals_have_the_truth_as_often_as_they_say():
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        difficulty = random.normal(0.0, 1.0, 150)
        twins = [
            difficulty
            + random.normal(0.0, 0.1, (3, 1))
            + random.normal(0.0, 0.4, (3, 150))
            < 1.5
            for _ in range(2)
        ]
        gain = difference(*twins)
        covered += gain.low <= 0.0 <= gain.high
    assert 0.91 <= covered / 200 <= 0.99


def made_probe(shares, seeds=5, samples=400, in_time=True, margin=0.01, earlier=None):
    """A result whose twins have these shares of samples right, and earlier those, all
    of them the first ones."""
    twins = ladder(8, in_time)
    places = (np.arange(samples) + 0.5) / samples

    def first_ones(shares):
        return {
            twin.name: np.tile(places < shares.get(twin.name, 0.5), (seeds, 1)).astype(
                "float32"
            )
            for twin in twins
        }

    right, before = first_ones(shares), first_ones({**shares, **(earlier or {})})
    return result(right, twins, margin, most_frequent=places < 0.5, earlier=before)


RATES = dict.fromkeys(("rate-1", "rate-2", "rate-4", "bptt"), 0.9)


@pytest.mark.parametrize(
    ("shares", "margin", "name"),
    [
        (RATES, 0.01, "rate-1"),
        ({**RATES, "one-step": 0.9}, 0.01, "one-step"),
        ({**RATES, "rate-1": 0.7, "sltt": 0.9}, 0.01, "rate-2"),
        ({"one-step": 0.6, "sltt": 0.9}, 0.01, "sltt"),
        # Means of inputs that have frames only tell what frames add.
        ({"one-step": 0.6, "mean": 0.9}, 0.01, "one-step"),
        # A gain of 5 points, of which one is wanted, or ten.
        ({"one-step": 0.85, "rate-1": 0.9}, 0.01, "rate-1"),
        ({"one-step": 0.85, "rate-1": 0.9}, 0.1, "one-step"),
    ],
)
def test_the_cheapest_twin_is_recommended_that_none_exceeds_by_more_than_the_margin(
    shares, margin, name
):
    assert made_probe(shares, margin=margin).recommended.name == name


def test_frames_that_add_nothing_to_their_mean_are_named():
    shares = {"one-step": 0.6, "rate-1": 0.9, "bptt": 0.9}
    assert "(frames" not in made_probe(shares).recommendation
    assert made_probe({**shares, "mean": 0.9}).recommendation.startswith(
        "Take timesteps=8 (frames and their order add no 1.0 points to their mean) and "
        'gradient="rate": it'
    )


def test_what_too_few_samples_leave_open_is_named():
    shares = {"one-step": 0.8, "bptt": 0.9}
    found = made_probe(shares, samples=20)
    assert found.recommended.name == "one-step"
    assert found.recommendation.endswith(
        "; 5 seeds and 20 samples leave open whether bptt (at most +24.41) does."
    )
    assert made_probe(shares, samples=1000).recommended.name == "bptt"


def test_nothing_is_recommended_where_accuracy_still_rises():
    shares = {"one-step": 0.6, "rate-1": 0.8, "bptt": 0.9}
    found = made_probe(shares, earlier={"rate-1": 0.7, "bptt": 0.895})
    assert (found.recommended, found.rising) == (None, ["rate-1"])
    assert found.recommendation.startswith(
        "Accuracy still rises: in the last quarter of the epochs that of rate-1 did. "
        "Train"
    )
    found = made_probe(shares, earlier={"rate-1": 0.7}, margin=0.15)
    assert found.recommended.name == "rate-1"
    # Means of frames are no way to train.
    assert made_probe(shares, earlier={"mean": 0.3}).recommended.name == "bptt"


@pytest.mark.on_each_backend
def test_twins_that_are_stopped_early_are_found():
    x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    make_model = maker(2, channels=8, neurons=lambda: PSN(2))
    found = analysis.temporal_probe(
        make_model, x, y, (x, y), epochs=1, seeds=5, margin=0.05, verbose=0
    )
    assert found.recommended is None
    assert found.rising == ["rate-1", "bptt"]


def test_nothing_is_recommended_where_nothing_is_learnt():
    found = made_probe({}, in_time=False)
    assert found.recommended is None
    assert found.recommendation.startswith(
        "Nothing is learnt: no twin is shown to be right more often than the most "
        "frequent"
    )
    assert "50.0 %" in found.recommendation


def test_the_result_prints_its_ladder_and_draws_a_figure(tmp_path):
    shares = {"one-step": 0.6, "mean": 0.7, "shuffled": 0.8}
    found = made_probe({**shares, "rate-2": 0.9, "rate-4": 0.9, "bptt": 0.9})
    data = ["8 steps over one", "frames over their mean", "order of the frames"]
    methods = ["rate-1 over sltt", "rate-2 over rate-1", "rate-4 over rate-2"]
    assert list(found.steps) == [*data, *methods, "bptt over rate-4"]
    lines = {}
    for line in str(found).splitlines():
        lines[line.split("  ")[0]] = line.split()
    assert lines["shuffled"][:5] == ["shuffled", "shuffled", "frames", "8", '"bptt"']
    assert lines["order of the frames"][-5] == "+10.00"
    assert lines["order of the frames"][-1] == "yes"
    assert lines["bptt over rate-4"][-1] == "no"
    assert str(found).endswith(found.recommendation)
    assert found.recommendation.startswith(
        "Take timesteps=8 and gradient=Rate(windows=2): it gains +30.00 points ("
    )
    without_frames = list(made_probe({}, in_time=False).steps)
    assert without_frames[:2] == ["8 steps over one", "rate-1 over sltt"]
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_that_a_twin_cannot_have_is_probed_without_it():
    x, y = rates_alone(8, 2)

    def make_model():
        keras.utils.set_random_seed(0)
        return maker(2, neurons=lambda: PSN(2))()

    # The seed has a warning of its own.
    message = "`make_model` gives the same initial weights for each seed"
    with pytest.warns(UserWarning, match=message):
        found = analysis.temporal_probe(make_model, x, y, (x, y), **ARGUMENTS)
    names = [twin.name for twin in found.twins]
    assert names == ["mean", "shuffled", "rate-1", "bptt"]
    assert set(found.left_out) == {"one-step", "sltt"}
    assert "Left out: sltt. gradient=" in str(found)
    assert next(iter(found.steps)) == "frames over their mean"


def shared():
    network = maker()().network

    def make_model():
        model = rsnn.SpikingModel(network, T)
        model.compile("sgd", "mse")
        return model

    return make_model


def uncompiled():
    return rsnn.SpikingModel(maker()().network, T)


X, Y = np.zeros((4, T, 2), "float32"), np.zeros(4, int)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"make_model": 3}, TypeError, "`make_model` must be a function"),
        (
            {"make_model": lambda: 3},
            TypeError,
            "`make_model` must be a function that returns a SpikingModel. Received: "
            ".*=3",
        ),
        (
            {"make_model": uncompiled},
            ValueError,
            "`make_model` must return a compiled model",
        ),
        (
            {"make_model": maker(return_sequences=True)},
            ValueError,
            "one output, .* return_sequences=True",
        ),
        (
            {"make_model": shared()},
            ValueError,
            "`make_model` must return a new network at each call",
        ),
        (
            {"make_model": maker(1)},
            ValueError,
            "several time steps. Received: timesteps=1",
        ),
        (
            {
                "make_model": maker(
                    loss=lambda y, outputs: (
                        keras.ops.sum(outputs, axis=-1) * float("nan")
                    )
                )
            },
            ValueError,
            "Received: a loss of nan in epoch 1 of 'one-step', seed 0",
        ),
        ({"x": X.tolist()}, TypeError, "`x` must be arrays"),
        (
            {"x": iter([X])},
            TypeError,
            "`x` must be arrays .* collect those of a data set",
        ),
        ({"x": X[:, :2]}, ValueError, "one frame for each of timesteps=3"),
        ({"y": Y[:3]}, ValueError, "same number of samples"),
        (
            {"validation_data": X},
            TypeError,
            r"`validation_data` must be a tuple \(x, y\)",
        ),
        (
            {"validation_data": (X[:, 0], Y)},
            ValueError,
            "`validation_data` must have .* with time: False, and x with time: True",
        ),
        ({"validation_data": (X[:1], Y[:1])}, ValueError, "at least two samples"),
        (
            {"validation_data": (X, Y + 9)},
            ValueError,
            "`validation_data` must be labels from 0 to",
        ),
        ({"seeds": 1}, ValueError, "`seeds` must be 2 or more"),
        ({"seeds": 2.0}, TypeError, "`seeds` must be an integer"),
        ({"epochs": 0}, ValueError, "`epochs` must be 1 or more"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be 1 or more"),
        ({"margin": -0.1}, ValueError, "`margin` must be >= 0.0"),
        ({"margin": "1"}, TypeError, "`margin` must be a real number"),
        ({"folder": 3}, TypeError, "`folder` must be a string or a path"),
        ({"threshold": "0"}, TypeError, "`threshold` must be a real number"),
        ({"verbose": 3}, ValueError, "`verbose` must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_an_error(changes, kind, message):
    arguments = {
        "make_model": maker(),
        "x": X,
        "y": Y,
        "validation_data": (X, Y),
        **ARGUMENTS,
        "epochs": 2,
        **changes,
    }
    with pytest.raises(kind, match=message):
        analysis.temporal_probe(**arguments)


def test_frames_without_a_mean_are_an_error():
    def make_model():
        inputs = keras.Input((2,), dtype="int32")
        return compiled(
            inputs, LIF()(layers.Flatten()(layers.Embedding(5, 3)(inputs))), T
        )

    x = np.zeros((4, T, 2), "int32")
    with pytest.raises(
        ValueError,
        match=r"`x` must have frames of which there is a mean\. Received: .* which "
        r"takes int32",
    ):
        analysis.temporal_probe(make_model, x, Y, (x, Y), **ARGUMENTS)
