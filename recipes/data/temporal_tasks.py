"""Tasks that need the order of their steps to a different degree.

Each has a knob that makes time matter more. Made tasks draw as many samples as are
asked for; the others are data that this package reads.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_digits

from recipes.data import fashion_mnist, japanese_vowels, saccades

NETWORKS = ("lif", "spread", "learned", "parallel")
OTHERS = ("recurrent", "delays")

SAMPLES = {"train": 1000, "validation": 500, "test": 500}
CLOTHES = {"train": 5000, "validation": 1000, "test": 5000}


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with one value of its knob.

    Args:
        name: String, with the value of the knob.
        about: String, what must be remembered, for how long.
        load: Function of a data folder, or `None`, that returns the parts `"train"`,
            `"validation"` and `"test"`, a dict of pairs of an array `(samples, T,
            channels)` and one of classes, or of numbers.
        outputs: Integer, the number of classes; 1 for numbers.
        networks: Names of networks, of `NETWORKS` and `OTHERS`.
        epochs: Integer.
        padding: The number that fills steps that are not there, or `None`.
    """

    name: str
    about: str
    load: Callable
    outputs: int
    networks: tuple[str, ...] = NETWORKS
    epochs: int = 40
    padding: float | None = None


def order(distance, starts=6, pairs=4):
    """Pairs of channels, each of which spikes once, one of a pair `distance` steps
    after the other; the class says which. All channels have the same rate in both."""

    def draw(count, random):
        x = np.zeros((count, starts + distance, 2 * pairs), "float32")
        y = random.integers(0, 2, count)
        begin = random.integers(0, starts, (count, pairs))
        sample = np.arange(count)
        for pair in range(pairs):
            x[sample, begin[:, pair], 2 * pair + y] = 1.0
            x[sample, begin[:, pair] + distance, 2 * pair + 1 - y] = 1.0
        return x, y

    return Task(
        f"order-{distance}",
        f"which of two spikes came first, for {distance} steps",
        _drawn(draw),
        2,
        (*NETWORKS, *OTHERS) if distance == 4 else NETWORKS,
    )


def match(gap, cues=4, channels=8, duration=2):
    """Two cues with a silent gap between them; the class says whether they are the
    same."""
    # Cues share no channel.
    patterns = np.repeat(np.eye(cues, dtype="float32"), channels // cues, axis=1)

    def draw(count, random):
        first, y = random.integers(0, cues, count), random.integers(0, 2, count)
        second = (first + (1 - y) * random.integers(1, cues, count)) % cues
        x = np.zeros((count, gap + 2 * duration, channels), "float32")
        x[:, :duration] = patterns[first][:, None]
        x[:, -duration:] = patterns[second][:, None]
        return x, y

    return Task(
        f"match-{gap}",
        f"a cue, for {gap} silent steps",
        _drawn(draw),
        2,
        (*NETWORKS, *OTHERS) if gap == 8 else NETWORKS,
    )


def adding(length=50):
    """Bits, two of which are marked, one in each half; the target is their sum."""

    def draw(count, random):
        bits = random.integers(0, 2, (count, length))
        marks = np.zeros((count, length), int)
        sample, half = np.arange(count), length // 2
        marks[sample, random.integers(0, half, count)] = 1
        marks[sample, random.integers(half, length, count)] = 1
        y = (bits * marks).sum(1)
        return np.stack([bits, marks], -1).astype("float32"), y.astype("float32")

    return Task(
        f"adding-{length}",
        f"a bit, for up to {length} steps",
        _drawn(draw),
        1,
    )


def digits(steps):
    """Images of digits of `sklearn`: row by row, or pixel by pixel in another order."""

    def load(data_dir):
        x, y = _digits()
        if steps == 64:
            x = x[:, np.random.default_rng(0).permutation(64)]
        return _parts(x.reshape(len(x), steps, -1), y)

    about = "the rows of an image" if steps == 8 else "pixels in another order"
    return Task(
        f"digits-{steps}",
        f"{about}, for {steps} steps",
        load,
        10,
        epochs=50 if steps == 64 else 40,
    )


def clothes(steps):
    """Images of Fashion-MNIST: row by row, or pixels in another order, some at each
    step."""

    def load(data_dir):
        data = fashion_mnist.load(data_dir)
        count = CLOTHES["train"] + CLOTHES["validation"]
        images = data.train_images[:count], data.test_images[: CLOTHES["test"]]
        x = (np.concatenate(images) / 255.0).astype("float32").reshape(-1, 784)
        labels = data.train_labels[:count], data.test_labels[: CLOTHES["test"]]
        if steps != 28:
            x = x[:, np.random.default_rng(0).permutation(784)]
        limits = np.cumsum(list(CLOTHES.values()))[:-1]
        parts = np.split(x.reshape(len(x), steps, -1), limits)
        labels = np.split(np.concatenate(labels), limits)
        return dict(zip(CLOTHES, zip(parts, labels, strict=True), strict=True))

    about = "the rows of an image" if steps == 28 else "pixels in another order"
    name, about = f"clothes-{steps}", f"{about}, for {steps} steps"
    return Task(name, about, load, 10, epochs=10)


def vowels(timesteps=japanese_vowels.LONGEST):
    """Japanese Vowels, sequences of unequal length."""

    def load(data_dir):
        data = japanese_vowels.load(data_dir, timesteps)
        rows = np.arange(len(data.train_images)) % 4 == 0
        return {
            "train": (data.train_images[~rows], data.train_labels[~rows]),
            "validation": (data.train_images[rows], data.train_labels[rows]),
            "test": (data.test_images, data.test_labels),
        }

    about = "the course of a vowel, for 7 to 29 steps"
    classes, padding = japanese_vowels.CLASSES, japanese_vowels.PADDING
    return Task("vowels-29", about, load, classes, epochs=60, padding=padding)


def saccade(timesteps=12, size=16):
    """Digits of `sklearn` that move before an event camera, in frames of events."""

    def load(data_dir):
        images, y = _digits()
        frames = np.zeros((len(y), timesteps, size, size, 2), "float32")
        for row, image in enumerate(images.reshape(-1, 8, 8)):
            random = np.random.default_rng([0, row])
            recording = saccades.record(np.uint8(255 * image), random)
            duration = len(saccades.CORNERS[1:]) * saccades.MICROSECONDS
            steps = recording.timestamp * timesteps // duration
            # The digit is seen where it is.
            pixel_rows = (recording.y - recording.y.min()) // 2
            columns = (recording.x - recording.x.min()) // 2
            place = np.minimum(steps, timesteps - 1), pixel_rows, columns
            np.add.at(frames[row], (*place, recording.polarity), 0.5)
        return _parts(frames.reshape(len(y), timesteps, -1), y)

    about = "events of three saccades, for 12 steps"
    return Task("saccades-12", about, load, 10)


def poisson(timesteps=16):
    """The control: each pixel of a digit spikes at each step with a probability that is
    its brightness."""

    def load(data_dir):
        x, y = _digits()
        draws = np.random.default_rng(0).random((len(x), timesteps, 64))
        return _parts((draws < x[:, None]).astype("float32"), y)

    return Task("poisson-16", "nothing, since rates tell all", load, 10)


def _digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16.0).astype("float32"), y


def _drawn(draw):
    """The parts of a task that `draw(count, random)` makes."""

    def load(data_dir):
        random = np.random.default_rng(0)
        return {part: draw(count, random) for part, count in SAMPLES.items()}

    return load


def _parts(x, y):
    """The parts of a data set, a fifth of it for validation and one for testing."""
    order = np.random.default_rng(1).permutation(len(x))
    held_out = len(x) // 5
    groups = np.split(order, [len(x) - 2 * held_out, len(x) - held_out])
    return {
        part: (x[rows], y[rows]) for part, rows in zip(SAMPLES, groups, strict=True)
    }


_ALL = (
    order(4),
    order(16),
    match(8),
    match(32),
    adding(),
    digits(8),
    digits(64),
    clothes(28),
    clothes(112),
    vowels(),
    saccade(),
    poisson(),
)
TASKS = {task.name: task for task in _ALL}
