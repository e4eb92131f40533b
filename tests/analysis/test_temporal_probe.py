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


def rates_alone(samples, timesteps=2):
    """Spikes at random, in one of two channels more; the class says in which."""
    y = np.arange(samples) % 2
    drawn = np.random.default_rng(0).random((samples, timesteps, 2))
    x = drawn < 0.1 + 0.85 * np.eye(2)[y][:, None]
    return x.astype("float32"), y


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


FITTED: list = []
"""What models were trained with, in calls of `fit`: `(timesteps, x)`, with the samples
in the order of their labels."""


@keras.saving.register_keras_serializable("temporal probe")
class Noted(rsnn.SpikingModel):
    interrupted_at = None

    def fit(self, x, y, **kwargs):
        order = np.argsort(y, kind="stable")
        sorted_x = keras.tree.map_structure(lambda leaf: np.asarray(leaf)[order], x)
        FITTED.append((self.timesteps, sorted_x))
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
        spikes = neurons()(layers.Dense(units)(inputs))
        return compiled(inputs, layers.Dropout(dropout)(spikes), timesteps, **kwargs)

    return make_model


def parallel(**kwargs):
    """Of parallel neurons and two steps without frames there are two twins."""
    return maker(2, neurons=lambda: PSN(2), **kwargs)


def probe(make_model, x, y, validation_data=None, seeds=2, epochs=1, **kwargs):
    arguments = {"seeds": seeds, "epochs": epochs, "verbose": 0, **kwargs}
    if validation_data is None:
        validation_data = x, y
    return analysis.temporal_probe(make_model, x, y, validation_data, **arguments)


def test_where_only_the_order_tells_windows_or_bptt_are_recommended():
    make_model = maker(channels=4, learning_rate=0.2)
    found = probe(make_model, *order_alone(repeats=16), epochs=4, batch_size=16)
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
    options = {"epochs": 3, "batch_size": 64, "margin": 0.05}
    x, y = rates_alone(401)
    found = probe(maker(2), *rates_alone(200), (x, np.eye(2)[y]), **options)
    assert found.recommended.name == "one-step"
    assert found.recommendation.startswith(
        'Take timesteps=1 on the mean of the frames and gradient="rate": no other twin '
        "gains "
    )
    assert found.gain("bptt", over="rate-1").high < 0.05
    # The labels are 0 and 1 in turn.
    assert found.most_frequent.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.on_each_backend
def test_an_interrupted_probe_goes_on_where_it_was(tmp_path, monkeypatch):
    make_model = parallel(units=3, dropout=0.5)
    x, y = rates_alone(24)

    def result_and_epochs(**more):
        FITTED.clear()
        try:
            found = probe(make_model, x[:, 0], y, epochs=2, batch_size=16, **more)
        except KeyboardInterrupt:
            found = None
        return found, len(FITTED)

    whole, epochs = result_and_epochs()
    assert (list(whole.right), epochs) == (["rate-1", "bptt"], 2 * 2 * 2)
    with monkeypatch.context() as patch:
        patch.setattr(Noted, "interrupted_at", 6)
        assert result_and_epochs(folder=tmp_path) == (None, 6)
    resumed, epochs = result_and_epochs(folder=tmp_path)
    assert epochs == 3
    for part in ("right", "earlier", "shuffled"):
        for name in whole.right:
            expected = getattr(whole, part)[name]
            assert_array_equal(getattr(resumed, part)[name], expected)
    assert result_and_epochs(folder=tmp_path)[1] == 0


def test_a_folder_of_another_budget_network_or_data_is_refused(tmp_path):
    x, y = rates_alone(8)
    validation_data = x[:, 0], y

    def in_folder(make_model=parallel(), x=x[:, 0], **changes):  # noqa: B008
        changes = {"validation_data": validation_data, **changes}
        return probe(make_model, x, y, folder=tmp_path, **changes)

    found, more = in_folder(), in_folder(margin=0.5, seeds=3)
    assert_array_equal(more.right["bptt"][:2], found.right["bptt"])

    def trained():
        model = parallel()()
        model.set_weights([weight + 1.0 for weight in model.get_weights()])
        return model

    changes = {
        "epochs=1, now 2": {"epochs": 2},
        "weights=": {"make_model": trained},
        "network=": {"make_model": maker(2, neurons=lambda: LIF(0.25))},
        "compile=": {"make_model": parallel(learning_rate=0.2)},
        "validation_data=": {"x": 2 * x[:, 0], "validation_data": (2 * x[:, 0], y)},
    }
    for changed, arguments in changes.items():
        message = f"`folder` must have .* the same budget.*{changed}.* another folder"
        with pytest.raises(ValueError, match=message):
            in_folder(**arguments)
    next(tmp_path.glob("bptt-0*")).write_bytes(b"PK")
    message = r"`folder` has a damaged file, .*bptt-0.* Delete it"
    with pytest.raises(ValueError, match=message):
        in_folder()


def seen(make_model, x, samples, monkeypatch):
    """What the twins that see the mean frame, in one step and in each, and the shuffled
    frames are trained with."""
    FITTED.clear()
    # No later twin is needed.
    monkeypatch.setattr(Noted, "interrupted_at", 3)
    with pytest.raises(KeyboardInterrupt):
        probe(make_model, x, np.arange(samples))
    (timesteps, mean), (_, at_each_step), (_, shuffled) = FITTED
    assert timesteps == 1
    return mean, at_each_step, shuffled


def test_padding_is_in_no_mean_and_stays_where_it_is(monkeypatch):
    x = np.arange(24, dtype="float32").reshape(3, 4, 2)
    x[0, 2:] = x[1, :1] = np.nan
    make_model = maker(4, mask_value=float("nan"), classes=3)
    found, at_each_step, shuffled = seen(make_model, x, 3, monkeypatch)
    counts, mean = np.isfinite(x), np.nanmean(x, axis=1)
    assert_allclose(found, mean)
    assert_allclose(at_each_step, np.where(counts, mean[:, None], np.nan))
    assert_array_equal(np.isfinite(shuffled), counts)
    assert not np.array_equal(shuffled, x, equal_nan=True)
    # Whole frames, of the same sample: two numbers that follow each other.
    assert_array_equal(np.sort(shuffled, axis=1), np.sort(x, axis=1))
    assert_array_equal(np.diff(shuffled)[counts[..., :1]], 1.0)


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
    assert_array_equal(shuffled["c"], x["c"])


def ladder(timesteps, in_time):
    """The twins of a network."""
    bptt, rate = rsnn.gradients.BPTT(), rsnn.gradients.Rate
    methods = {"one-step": rate()}
    if in_time:
        methods |= {"mean": bptt, "shuffled": bptt}
    methods["sltt"] = rsnn.gradients.SLTT()
    methods |= {f"rate-{windows}": rate(windows) for windows in (1, 2, 4)}
    methods["bptt"] = bptt
    frames = {"one-step": "mean", "mean": "mean", "shuffled": "shuffled"}
    return tuple(
        types.SimpleNamespace(
            name=name,
            gradient=gradient,
            frames=frames.get(name, "given"),
            timesteps=1 if name == "one-step" else timesteps,
        )
        for name, gradient in methods.items()
    )


def result(right, twins, margin=0.01, most_frequent=None, earlier=None):
    """A result of which these samples are right, and were earlier, by the names of
    twins."""
    samples = next(iter(right.values())).shape[1]
    given = [twin.name for twin in twins if twin.frames == "given"]
    return analysis.TemporalProbe(
        in_time=any(twin.name == "shuffled" for twin in twins),
        twins=twins,
        right=right,
        earlier=earlier or right,
        shuffled={name: right[name].mean(axis=1) for name in given if name in right},
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
    random = np.random.default_rng(0).random((2, 3, 40))
    one, other = random < np.array([0.9, 0.3])[:, None, None]
    gains = one.astype(float) - other
    # By hand, as in a table of two factors without replication.
    seeds, samples = gains.mean(axis=1, keepdims=True), gains.mean(axis=0)
    squares = 40 * seeds.var(ddof=1), 3 * samples.var(ddof=1)
    rest = ((gains - seeds - samples + gains.mean()) ** 2).sum() / (2 * 39)
    error = np.sqrt((sum(squares) - min(rest, *squares)) / 120)
    gain = difference(one, other)
    assert (gain.mean, gain.error) == pytest.approx((gains.mean(), error))
    assert gain.low < gain.mean < gain.high
    # Equal twins differ by less than two samples or so, whatever the number of seeds.
    equal = difference(np.ones((9, 50)), np.ones((9, 50)))
    assert (equal.mean, equal.error) == (0.0, pytest.approx(1 / 50))
    assert difference(np.ones((2, 2)), np.zeros((2, 2))).high == 1.0


def test_intervals_have_the_truth_as_often_as_they_say():
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        difficulty = random.normal(0.0, 1.0, 150)
        seeds = random.normal(0.0, 0.1, (2, 3, 1))
        noise = random.normal(0.0, 0.4, (2, 3, 150))
        gain = difference(*(difficulty + seeds + noise < 1.5))
        covered += gain.low <= 0.0 <= gain.high
    assert 0.91 <= covered / 200 <= 0.99


def made_probe(shares, seeds=5, samples=400, in_time=True, margin=0.01, earlier=None):
    """A result whose twins have these shares of samples right, and earlier those, all
    of them the first ones."""
    twins = ladder(8, in_time)
    places = (np.arange(samples) + 0.5) / samples

    def first_ones(shares):
        right = {}
        for twin in twins:
            is_right = places < shares.get(twin.name, 0.5)
            right[twin.name] = np.tile(is_right, (seeds, 1)).astype("float32")
        return right

    right, before = first_ones(shares), first_ones({**shares, **(earlier or {})})
    return result(right, twins, margin, most_frequent=places < 0.5, earlier=before)


RATES = dict.fromkeys(("rate-1", "rate-2", "rate-4", "bptt"), 0.9)
LATER = {"one-step": 0.6, "rate-1": 0.9, "bptt": 0.9}
UNCLEAR = {"one-step": 0.8, "bptt": 0.9}
RISING = {"one-step": 0.6, "rate-1": 0.8, "bptt": 0.9}


@pytest.mark.parametrize(
    ("shares", "options", "name", "text"),
    [
        (RATES, {}, "rate-1", ""),
        ({**RATES, "one-step": 0.9}, {}, "one-step", ""),
        ({**RATES, "rate-1": 0.7, "sltt": 0.9}, {}, "rate-2", ""),
        ({"one-step": 0.6, "sltt": 0.9}, {}, "sltt", ""),
        # Means of inputs that have frames only tell what frames add.
        ({"one-step": 0.6, "mean": 0.9}, {}, "one-step", ""),
        # A gain of 5 points, of which one is wanted, or ten.
        ({"one-step": 0.85, "rate-1": 0.9}, {}, "rate-1", ""),
        ({"one-step": 0.85, "rate-1": 0.9}, {"margin": 0.1}, "one-step", ""),
        (LATER, {}, "rate-1", 'Take timesteps=8 and gradient="rate": it'),
        (
            {**LATER, "mean": 0.9},
            {},
            "rate-1",
            "Take timesteps=8 (frames and their order add no 1.0 points to their mean) "
            'and gradient="rate": it',
        ),
        (
            UNCLEAR,
            {"samples": 20},
            "bptt",
            "; 5 seeds and 20 samples leave open whether one-step is as good.",
        ),
        # A standard error is 0.6 points, and with 10 samples 9.5.
        (
            {"one-step": 0.885, "bptt": 0.9},
            {},
            "one-step",
            "whether bptt gains more (at",
        ),
        (UNCLEAR, {"samples": 10}, "one-step", ""),
        (UNCLEAR, {"samples": 1000}, "bptt", ""),
        (
            RISING,
            {"earlier": {"rate-1": 0.7, "bptt": 0.895}},
            None,
            "Accuracy still rises: in the last quarter of the epochs that of rate-1 "
            "did. Train",
        ),
        (RISING, {"earlier": {"rate-1": 0.7}, "margin": 0.15}, "rate-1", ""),
        # Means of frames are no way to train.
        (RISING, {"earlier": {"mean": 0.3}}, "bptt", ""),
        (
            {},
            {"in_time": False},
            None,
            "No twin learns: the most frequent class is right in 50.0 %",
        ),
        # A network that forgets learns a little.
        (
            {"one-step": 0.6, "bptt": 0.7},
            {},
            None,
            "which may forget, not of time in the data. Change its memory first "
            "(decay=layers.TimeConstants(2, 200)",
        ),
        (
            {"rate-1": 0.7},
            {"earlier": {"rate-1": 0.6}},
            None,
            "the learning rate. Accuracy still rises: in the last quarter",
        ),
    ],
)
def test_the_cheapest_twin_is_recommended_that_none_exceeds_by_a_standard_error(
    shares, options, name, text
):
    found = made_probe(shares, **options)
    assert getattr(found.recommended, "name", None) == name
    assert text in found.recommendation
    assert found.rising == (["rate-1"] if "rises" in text else [])


@pytest.mark.parametrize(
    ("lost", "steady"), [((0.2, 0.0, 0.0), "bptt"), ((0.02,) * 3, None)]
)
def test_a_dearer_twin_that_is_better_and_steady_is_named_beside_the_cheapest(
    lost, steady
):
    shares = {"rate-1": 0.9, "bptt": 0.9, "sltt": 0.8}
    found = made_probe(shares, seeds=3, margin=0.06)
    for right, share in zip(found.right["rate-1"], lost, strict=True):
        right[: int(share * len(right))] = 0.0
    assert found.recommended.name == "rate-1"
    said = ". bptt costs more, and is better and steady: 90.00 ± 0.00 %."
    assert found.recommendation.endswith(said) == (steady is not None)
    assert "sltt costs" not in found.recommendation


def test_twins_that_are_stopped_early_are_found():
    x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    found = probe(parallel(channels=8), x, y, seeds=5, margin=0.05)
    assert found.recommended is None
    assert found.rising == ["rate-1", "bptt"]


def test_the_result_prints_its_ladder_and_draws_a_figure(tmp_path):
    shares = {"one-step": 0.6, "mean": 0.7, "shuffled": 0.8}
    found = made_probe({**shares, "rate-2": 0.9, "rate-4": 0.9, "bptt": 0.9})
    data = ["8 steps over one", "frames over their mean", "order of the frames"]
    methods = ["rate-1 over sltt", "rate-2 over rate-1", "rate-4 over rate-2"]
    assert list(found.steps) == [*data, *methods, "bptt over rate-4"]
    rows = {line.split("  ")[0]: line.split() for line in str(found).splitlines()}
    assert rows["shuffled"][:5] == ["shuffled", "shuffled", "frames", "8", '"bptt"']
    assert rows["order of the frames"][-5] == "+10.00"
    assert rows["order of the frames"][-1] == "yes"
    assert rows["bptt over rate-4"][-1] == "no"
    assert str(found).endswith(found.recommendation)
    start = "Take timesteps=8 and gradient=Rate(windows=2): it gains +30.00 points ("
    assert found.recommendation.startswith(start)
    without_frames = list(made_probe({}, in_time=False).steps)
    assert without_frames[:2] == ["8 steps over one", "rate-1 over sltt"]
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_network_that_a_twin_cannot_have_is_probed_without_it():
    def make_model():
        keras.utils.set_random_seed(0)
        return parallel()()

    # The seed has a warning of its own.
    message = "`make_model` gives the same initial weights for each seed"
    with pytest.warns(UserWarning, match=message):
        found = probe(make_model, *rates_alone(8))
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


def growing():
    """A network with one unit more at each call."""
    sizes = itertools.count(3)
    return lambda: maker(units=next(sizes))()


def uncompiled():
    return rsnn.SpikingModel(maker()().network, T)


X, Y = np.zeros((4, T, 2), "float32"), np.zeros(4, int)


def embedded():
    inputs = keras.Input((2,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(5, 3)(inputs))
    return compiled(inputs, LIF()(x), T)


NO_MEAN = "`x` must have frames of which there is a mean.* which takes int32"


def broken_loss(y, outputs):
    return keras.ops.sum(outputs, axis=-1) * float("nan")


@pytest.mark.parametrize(
    ("argument", "value", "kind", "message"),
    [
        ("make_model", lambda: 3, TypeError, "a SpikingModel. Received: .*=3"),
        (
            "make_model",
            uncompiled,
            ValueError,
            "`make_model` must return a compiled model",
        ),
        (
            "make_model",
            maker(return_sequences=True),
            ValueError,
            "one output, .* return_sequences=True",
        ),
        ("make_model", shared(), ValueError, "return a new network at each call"),
        ("make_model", growing(), ValueError, "must build the same network at each"),
        ("make_model", maker(1), ValueError, "several time steps. .*timesteps=1"),
        (
            "make_model",
            maker(loss=broken_loss),
            ValueError,
            "Received: a loss of nan in epoch 1 of 'one-step', seed 0",
        ),
        ("x", X.astype("int32"), ValueError, NO_MEAN),
        (
            "x",
            iter([X]),
            TypeError,
            "`x` must be arrays .* collect those of a data set",
        ),
        ("x", X[:, :2], ValueError, "one frame for each of timesteps=3"),
        (
            "validation_data",
            X,
            TypeError,
            r"`validation_data` must be a tuple \(x, y\)",
        ),
        (
            "validation_data",
            (X[:, 0], Y),
            ValueError,
            "`validation_data` must have .* with time: False, and x with time: True",
        ),
        ("validation_data", (X[:1], Y[:1]), ValueError, "at least two samples"),
        (
            "validation_data",
            (X, Y + 9),
            ValueError,
            "`validation_data` must be labels from 0 to",
        ),
        ("seeds", 1, ValueError, "`seeds` must be 2 or more"),
    ],
)
def test_bad_input_is_an_error(argument, value, kind, message):
    given = {"make_model": maker(), "x": X, "y": Y, "validation_data": (X, Y)}
    if message is NO_MEAN:
        given |= {"make_model": embedded, "validation_data": (value, Y)}
    given |= {"epochs": 2, argument: value}
    with pytest.raises(kind, match=message):
        probe(**given)
