"""A probe of whether data need time: the accuracy that the order of frames, more time
steps and gradients through time add."""

import dataclasses
import itertools
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks, progress
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn.analysis import _accuracy, _figures, _text
from keras_ratesnn.analysis.probe import _twins
from keras_ratesnn.analysis.probe._frames import Frames
from keras_ratesnn.analysis.probe._paired import PairedGain, paired_gain
from keras_ratesnn.analysis.probe._twin_folder import TwinFolder, TwinResult
from keras_ratesnn.analysis.probe._twins import (
    GIVEN,
    MEAN,
    SHUFFLED,
    Budget,
    Examples,
    Twin,
    Twins,
)
from keras_ratesnn.gradients import Rate
from keras_ratesnn.spiking_model import SpikingModel

POINTS = 100
"""Percentage points in an accuracy of 1."""

LEARNT = 0.5
"""A network that has learnt gets right more than this share of the samples that the
most frequent class gets wrong."""

_SEEN = {MEAN: "mean frame", SHUFFLED: "shuffled frames", GIVEN: "frames"}
"""The inputs with time that twins see, in words."""


@dataclasses.dataclass(frozen=True, eq=False)
class TemporalProbe:
    """The result of `temporal_probe`; it can be printed.

    Args:
        in_time: Boolean, whether the inputs have frames; else they are the same at
            every step.
        twins: Tuple of `Twin`, with `name`, `frames`, `timesteps` and `gradient`.
        right: Dict from the name of each twin to an array `(seeds, samples)`: 1 where a
            validation sample is right, or the share of its labels that are.
        earlier: Dict of the same before the last quarter of the epochs.
        shuffled: Dict from the names of the twins that see the data as they are, for
            several steps, to an array `(seeds,)`: the accuracy after their spikes are
            shuffled in time, see `shuffle_in_time`.
        most_frequent: Array `(samples,)`: 1 where the most frequent class is right, or
            the share of labels.
        margin: Float, the smallest gain that is worth something.
        epochs: Integer, those of each twin.
        batch_size: Integer.
        left_out: Dict from the names of twins that the network cannot have to the
            reason.
    """

    in_time: bool
    twins: tuple[Twin, ...]
    right: dict[str, np.ndarray]
    earlier: dict[str, np.ndarray]
    shuffled: dict[str, np.ndarray]
    most_frequent: np.ndarray
    margin: float
    epochs: int
    batch_size: int
    left_out: dict[str, str]

    @property
    def accuracy(self) -> dict[str, np.ndarray]:
        """The accuracy of each twin with each seed, `(seeds,)`, by name."""
        return {name: right.mean(axis=1) for name, right in self.right.items()}

    @property
    def steps(self) -> dict[str, PairedGain]:
        """The gains of the steps of the ladder, see `gain`: first of what the data
        tell, then of what a gradient sees of it."""
        by_data = [
            twin for twin in self.twins if twin.frames != GIVEN or twin.name == "bptt"
        ]
        by_gradient = [twin for twin in self.twins if twin.frames == GIVEN]
        pairs = [*itertools.pairwise(by_data), *itertools.pairwise(by_gradient)]
        return {
            _added(above, below): self.gain(above.name, below.name)
            for below, above in pairs
        }

    def gain(self, twin: str, over: str) -> PairedGain:
        """How much more accurate a twin is than another one.

        Args:
            twin: String, the name of a twin.
            over: String, that of the other.

        Returns:
            `mean` of the difference, its standard error `error`, and its 95 % interval
            from `low` to `high`.
        """
        checks.one_of("twin", twin, self.right)
        checks.one_of("over", over, self.right)
        return paired_gain(self.right[twin], self.right[over])

    @property
    def rising(self) -> list[str]:
        """The twins that are shown to have gained in the last quarter of the epochs,
        and more than the margin in the mean."""
        rising = []
        for twin in self._choices():
            gain = paired_gain(self.right[twin.name], self.earlier[twin.name])
            if gain.low > 0.0 and gain.mean > self.margin:
                rising.append(twin.name)
        return rising

    @property
    def recommended(self) -> Twin | None:
        """The twin that costs least, among those over which no other gains the margin
        and a standard error.

        `None` if no twin learns, so that they tell of the network and not of the data:
        none gains half of what is missing to the most frequent class, or is shown to
        gain anything; or if the accuracy of any still rises: it might be another twin
        after longer training.
        """
        choices = self._choices()
        if self.rising or not self._is_learnt():
            return None
        # The most accurate one is among them: no mean is above its own.
        return next(twin for twin in choices if not self._is_exceeded(twin, choices))

    def _is_learnt(self):
        # Networks also learn the mean and shuffled frames.
        gains = [self._over_most_frequent(twin) for twin in self.twins]
        enough = LEARNT * (1.0 - self.most_frequent.mean())
        return any(gain.mean > enough and gain.low > 0.0 for gain in gains)

    def _is_exceeded(self, twin, choices):
        """Whether another twin gains the margin and a standard error. With few seeds a
        95 % interval is so wide that one that fails with every other seed would pass.

        Source: the one-standard-error rule of Breiman et al., "Classification and
        Regression Trees", 1984, section 3.4.3.
        """
        for rival in choices:
            if rival != twin:
                gain = self.gain(rival.name, twin.name)
                if gain.mean - gain.error > self.margin:
                    return True
        return False

    @property
    def recommendation(self) -> str:
        """The number of time steps, the gradient and its windows, and why: a
        sentence."""
        twin, margin = self.recommended, f"{POINTS * self.margin:.1f} points"
        seeds, samples = next(iter(self.right.values())).shape
        rises = ""
        if self.rising:
            rises = (
                "Accuracy still rises: in the last quarter of the epochs that of "
                f"{', '.join(self.rising)} did. Train for more epochs."
            )
        if not self._is_learnt():
            share = POINTS * self.most_frequent.mean()
            return (
                f"No twin learns: the most frequent class is right in {share:.1f} %, "
                "and none gains half of what is missing. This tells of the network, "
                "which may forget, not of time in the data. Change its memory first "
                "(decay=layers.TimeConstants(2, 200), learn_decay=True, or parallel "
                "neurons), then the scale of its kernels (VarianceScaling(6.0)), the "
                f"readout and the learning rate. {rises}"
            ).rstrip()
        if twin is None:
            return rises
        mean = ""
        if self.in_time and twin.timesteps == 1:
            mean = " on the mean of the frames"
        elif self.in_time and self.gain("bptt", over="mean").high < self.margin:
            mean = f" (frames and their order add no {margin} to their mean)"
        choices = self._choices()
        index = choices.index(twin)
        sentence = (
            f"Take timesteps={twin.timesteps}{mean} and gradient={_gradient(twin)}: "
        )
        possible = []
        if index:
            best = max(choices[:index], key=lambda cheap: self.right[cheap.name].mean())
            gain = self.gain(twin.name, best.name)
            points, interval = _cells(gain)
            sentence += (
                f"it gains {points} points ({interval}) over {best.name}, the "
                "best that costs less, and "
            )
            if gain.low < self.margin:
                possible.append(f"{best.name} is as good")
        sentence += f"no other twin gains more than {margin} and a standard error"
        for dearer in choices[index + 1 :]:
            high = self.gain(dearer.name, twin.name).high
            if high > self.margin:
                most = f"{POINTS * high:+.2f}"
                possible.append(f"{dearer.name} gains more (at most {most})")
        if possible:
            sentence += (
                f"; {seeds} seeds and {samples} samples leave open whether "
                f"{' or '.join(possible)}"
            )
        for steady in self._steadier(twin):
            mean = _mean(self.accuracy[steady])
            sentence += f". {steady} costs more, and is better and steady: {mean} %"
        return f"{sentence}."

    def _steadier(self, twin):
        """The SLTT and BPTT twins that have a higher mean than a twin whose seeds
        differ by more than the margin, while theirs do not."""
        accuracy = self.accuracy
        spread = {name: np.ptp(values) for name, values in accuracy.items()}
        if spread[twin.name] <= self.margin:
            return []
        exact = [name for name in ("sltt", "bptt") if name in accuracy]
        return [
            name
            for name in exact
            if spread[name] <= self.margin
            and accuracy[name].mean() > accuracy[twin.name].mean()
        ]

    def _choices(self):
        """The twins that can be recommended, from the one that costs least: T + 2W
        forward passes by rate, others 3T."""
        one_step = [twin for twin in self.twins if twin.timesteps == 1]
        several = [
            twin for twin in self.twins if twin.frames == GIVEN and twin.timesteps > 1
        ]
        # The sort keeps the order of equal ones.
        several.sort(key=lambda twin: not isinstance(twin.gradient, Rate))
        return [*one_step, *several]

    def _over_most_frequent(self, twin):
        right = self.right[twin.name]
        return paired_gain(right, np.broadcast_to(self.most_frequent, right.shape))

    def __str__(self) -> str:
        seeds, samples = next(iter(self.right.values())).shape
        columns = ["twin", "sees", "T", "gradient", "accuracy, %", "spikes shuffled"]
        rows = []
        for twin in self.twins:
            shuffled = self.shuffled.get(twin.name)
            rows.append(
                [
                    twin.name,
                    _SEEN[twin.frames] if self.in_time else "input",
                    str(twin.timesteps),
                    _gradient(twin),
                    _mean(self.accuracy[twin.name]),
                    "" if shuffled is None else _mean(shuffled),
                ]
            )
        lines = [
            f"{seeds} seeds, {self.epochs} epochs in batches of {self.batch_size}, "
            f"{samples} validation samples; mean ± standard deviation of seeds",
            *_text.table(columns, rows, left=2),
        ]
        for name, reason in self.left_out.items():
            lines.append(f"Left out: {name}. {reason}")
        question = f"{POINTS * self.margin:.1f} points?"
        columns = ["step", "gains, points", "95 % interval", question]
        rows = [
            [name, *_cells(gain), self._verdict(gain)]
            for name, gain in self.steps.items()
        ]
        lines += ["", *_text.table(columns, rows, left=1), "", self.recommendation]
        return "\n".join(lines)

    def _verdict(self, gain):
        if gain.low > self.margin:
            return "yes"
        return "no" if gain.high < self.margin else "open"

    def plot(self) -> Any:
        """Draws the accuracies of all seeds, and what each step of the ladder gains,
        with its 95 % interval.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        steps = self.steps
        height = 0.9 + 0.36 * max(len(self.twins), len(steps))
        figure, (left, right) = _figures.new_figure(10.0, height, 1, 2)
        names = [f"{twin.name}, T = {twin.timesteps}" for twin in self.twins]
        for row, twin in enumerate(self.twins):
            accuracies = self.accuracy[twin.name]
            rows = np.full(len(accuracies), row)
            left.plot(accuracies, rows, "o", color="0.6", markersize=4)
            left.plot(accuracies.mean(), row, "|", color="black", markersize=16)
        left.set_title("accuracy of each seed, and mean", fontsize="medium")
        gains = [(gain.low, gain.mean, gain.high) for gain in steps.values()]
        low, means, high = POINTS * np.transpose(gains)
        right.errorbar(
            means,
            range(len(steps)),
            xerr=[means - low, high - means],
            fmt="s",
            color="black",
            capsize=3,
        )
        right.axvline(0, color="0.6", linewidth=1)
        margin = POINTS * self.margin
        right.axvline(
            margin,
            color="black",
            linestyle="--",
            linewidth=1,
            label=f"margin, {margin:.1f} points",
        )
        right.set_title("gain in points, 95 % interval", fontsize="medium")
        right.legend(fontsize="small")
        for axes, labels in ((left, names), (right, steps)):
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
            axes.grid(alpha=0.3, axis="x")
        return figure


def temporal_probe(
    make_model: Callable[[], SpikingModel],
    x: Structure,
    y: Any,
    validation_data: tuple[Structure, Any],
    epochs: int = 10,
    batch_size: int = 32,
    seeds: int = 5,
    margin: float = 0.01,
    folder: str | os.PathLike[str] | None = None,
    threshold: float = 0.5,
    verbose: Verbosity = "auto",
) -> TemporalProbe:
    """Measures whether data need time, and which training makes use of it, by training
    twins.

    Twins have the same network, epochs, batches, optimizer and loss, and for each seed
    the same initial weights:

    * `one-step` sees the mean of the frames, or an input without time, for one step;
    * `mean`: the mean of the frames at each step, by BPTT (of inputs with time only);
    * `shuffled`: the frames of each sample in another order, in validation, too, by
      BPTT (of inputs with time only);
    * `sltt`, `rate-1`, `rate-2`, `rate-4` (windows, fewer than T) and `bptt`: the data
      as they are.

    Padding counts in no mean and stays where it is. Differences are paired by seed and
    by sample. Their standard error counts both as drawn at random, so that the
    interval, by Student's t, is that for other seeds and other samples. A gain is shown
    if its whole interval is above `margin`. The recommended twin is the one that costs
    least, in the order one step, rate with 1, 2 and 4 windows, SLTT and BPTT, among
    those over which no other gains `margin` and a standard error in the mean; what is
    open is named, and SLTT or BPTT beside it, if their mean is higher and their seeds
    are within `margin`, while those of the recommended are not. None is recommended if
    no twin learns (the best gains less than half of what is missing to the most
    frequent class: the network may forget what the data tell), or if any of them gained
    more than `margin` in the last quarter of its epochs: it was stopped early.
    Intervals hold for one comparison each.

    Example:

    >>> def make_model():
    ...     inputs = keras.Input((2,))
    ...     spikes = keras_ratesnn.layers.LIF()(keras.layers.Dense(8)(inputs))
    ...     model = keras_ratesnn.SpikingModel(
    ...         keras.Model(inputs, keras.layers.Dense(2)(spikes)), timesteps=2
    ...     )
    ...     model.compile(
    ...         keras.optimizers.Adam(0.1),
    ...         keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     )
    ...     return model
    >>> y = np.arange(200) % 2
    >>> x = np.random.default_rng(0).random((200, 2)) + 2 * np.eye(2)[y]
    >>> found = temporal_probe(make_model, x, y, (x, y), epochs=3, seeds=2, verbose=0)
    >>> found.recommended.name
    'one-step'

    Args:
        make_model: Function without arguments that returns a new compiled
            `SpikingModel` with one output. Its `timesteps`, at least 2, are those of
            all twins but `one-step`; its gradient is not used.
        x: Inputs, an array or a structure of arrays.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for each
            output, as for `"accuracy"` in Keras.
        validation_data: Tuple `(x, y)`, with which twins are compared.
        epochs: Integer. Defaults to `10`.
        batch_size: Integer. Defaults to `32`.
        seeds: Integer >= 2, how many: 0, 1, .... Defaults to `5`.
        margin: Float >= 0, the smallest gain in accuracy that is worth something.
            Defaults to `0.01`.
        folder: Path of a folder that keeps what is done: after an interruption the same
            call goes on after the last whole epoch, and with more `seeds` only the new
            ones are trained. Defaults to `None`, nothing is kept.
        threshold: Float, the output above which a binary label is 1; 0 for logits.
            Defaults to `0.5`.
        verbose: `"auto"`, 0, 1 or 2, as in `model.predict`: 1 shows a progress bar, 2 a
            line at the end, 0 nothing. Defaults to `"auto"`, which is 1.

    Returns:
        `TemporalProbe`. The global random seeds are set, as by
        `keras.utils.set_random_seed`.

    Raises:
        TypeError: If data are no arrays, such as a data set, `make_model` does not
            return a `SpikingModel`, or a number has the wrong type.
        ValueError: If a number is out of range, data do not fit the model, `make_model`
            returns a model that is not compiled or cannot be trained, or `folder` has
            results of another budget, network, initial weights or data.
    """
    checks.function(
        "make_model", make_model, advice="It builds and compiles a SpikingModel."
    )
    progress.checked(verbose)
    epochs = checks.positive_integer("epochs", epochs)
    batch_size = checks.positive_integer("batch_size", batch_size)
    margin = checks.real(
        "margin",
        margin,
        at_least=0.0,
        below=1.0,
        advice="It is a difference of accuracies.",
    )
    seeds = checks.integer(
        "seeds", seeds, at_least=2, advice="Differences between seeds are the error."
    )
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise checks.wrong_type("validation_data", "a tuple (x, y)", validation_data)
    keras.utils.set_random_seed(0)
    model = _twins.checked(make_model())
    if model.timesteps < 2:
        raise ValueError(
            "`make_model` must return a model of several time steps. Received: "
            f"timesteps={model.timesteps}. A network of one step has no time to need."
        )
    train = _examples(model, "x", x, y)
    validation = _examples(model, "validation_data", *validation_data)
    if train.x.in_time != validation.x.in_time or len(validation.y) < 2:
        raise ValueError(
            "`validation_data` must have at least two samples, with frames if `x` has "
            f"frames. Received: {len(validation.y)} samples, with time: "
            f"{validation.x.in_time}, and x with time: {train.x.in_time}."
        )
    budget = Budget(
        make_model,
        train,
        validation,
        epochs,
        batch_size,
        checks.real("threshold", threshold),
    )
    store = None if folder is None else TwinFolder(folder, budget.described(model))
    twins = Twins(budget, _twins.ladder(model.timesteps, train.x.in_time), store)
    # Seeds are the outer loop, so that after an interruption all twins have the same.
    runs = list(itertools.product(range(seeds), twins.all))
    results: dict[str, list[TwinResult]] = {twin.name: [] for twin in twins.all}
    for seed, twin in progress.tracked(runs, len(runs), verbose):
        results[twin.name].append(twins.result(twin, seed))
    right, earlier, shuffled = {}, {}, {}
    for name, by_seed in results.items():
        rights, earliers, accuracies = zip(*by_seed, strict=True)
        right[name], earlier[name] = np.stack(rights), np.stack(earliers)
        if not np.isnan(accuracies).any():
            shuffled[name] = np.array(accuracies)
    classes = model.output_shape[-1]
    return TemporalProbe(
        in_time=train.x.in_time,
        twins=tuple(twins.all),
        right=right,
        earlier=earlier,
        shuffled=shuffled,
        most_frequent=_most_frequent(validation.y, classes, budget.threshold),
        margin=margin,
        epochs=epochs,
        batch_size=batch_size,
        left_out=twins.left_out,
    )


def _examples(model, name, x, y):
    for leaf in keras.tree.flatten((x, y)):
        if not isinstance(leaf, np.ndarray) and not ops.is_tensor(leaf):
            advice = (
                "Twins see the same samples in the same order: collect those of a "
                "data set in arrays first."
            )
            raise checks.wrong_type(
                name, "arrays of inputs, with an array of labels", leaf, advice
            )
    x, y = keras.tree.map_structure(ops.convert_to_numpy, x), ops.convert_to_numpy(y)
    frames = Frames(model, x)
    _accuracy.check_labels(x, y)
    _accuracy.check_classes(model, "y" if name == "x" else name, y)
    return Examples(frames, y)


def _most_frequent(y, classes, threshold):
    """1 where the answer that is right most often is right, `(samples,)`, or the share
    of the labels of a sample."""
    flat = y.reshape(len(y), -1)
    if flat.shape[1] == classes:
        shares = flat.mean(axis=0) - 0.5 + threshold
    else:
        shares = np.bincount(flat[:, 0].astype(int), minlength=classes)
    answers = np.broadcast_to(shares.astype("float32"), (len(y), classes))
    return _accuracy.right(y, answers, threshold)


def _gradient(twin):
    """The gradient of a twin as users write it."""
    windows = getattr(twin.gradient, "windows", 1)
    if windows > 1:
        return f"Rate(windows={windows})"
    return f'"{type(twin.gradient).__name__.lower()}"'


def _added(above, below):
    """The gain of a twin over the one below it."""
    if above.frames == SHUFFLED:
        return "frames over their mean"
    if below.frames == SHUFFLED:
        return "order of the frames"
    if below.timesteps != above.timesteps:
        return f"{above.timesteps} steps over one"
    return f"{above.name} over {below.name}"


def _mean(accuracies):
    return f"{POINTS * accuracies.mean():.2f} ± {POINTS * accuracies.std(ddof=1):.2f}"


def _cells(gain):
    return (
        f"{POINTS * gain.mean:+.2f}",
        f"{POINTS * gain.low:+.2f} to {POINTS * gain.high:+.2f}",
    )
