"""Differences between two ways of training, paired by seed and by sample."""

import dataclasses

import numpy as np

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class PairedGain:
    """How much more accurate one way of training is than another.

    Args:
        mean: Float, the difference between the mean accuracies.
        error: Float, its standard error.
        low: Float, the lower end of its 95 % interval.
        high: Float, the upper end.
    """

    mean: float
    error: float
    low: float
    high: float


def paired_gain(right: np.ndarray, baseline: np.ndarray) -> PairedGain:
    """The difference between two ways of training, from what each of them had right,
    `(seeds, samples)`.

    Both were trained with the same seeds and tested on the same samples, so what a seed
    or a sample does to both of them cancels. What is left varies between seeds, which
    stand for all initial weights and orders of batches, and between samples, which
    stand for all data. The variance of the mean is the sum of both parts (a crossed
    design of two random factors), with Satterthwaite's degrees of freedom. No
    difference is known better than to one sample.

    Source: Cornfield and Tukey, "Average Values of Mean Squares in Factorials", 1956.

    Args:
        right: Array `(seeds, samples)`: 1 where a sample is right, or the share of its
            labels that are.
        baseline: The same of the way that it is compared with.
    """
    gain = right.astype("float64") - baseline
    seeds, samples = gain.shape
    mean, by_seed, by_sample = gain.mean(), gain.mean(axis=1), gain.mean(axis=0)
    rest = gain - by_seed[:, None] - by_sample + mean
    free = np.array([seeds - 1, samples - 1, (seeds - 1) * (samples - 1)])
    # Mean squares: of seeds, of samples, and of what neither explains, which is in both
    # of them.
    squares = np.array(
        [
            samples * by_seed.var(ddof=1),
            seeds * max(by_sample.var(ddof=1), 1 / samples),
            0.0,
        ]
    )
    squares[2] = min((rest**2).sum() / free[2], *squares[:2])
    variance = squares @ [1, 1, -1]
    error = float(np.sqrt(variance / gain.size))
    half = error * student_t(max(1.0, variance**2 / (squares**2 / free).sum()))
    mean = float(mean)
    # Accuracies differ by 1 at most.
    return PairedGain(mean, error, max(-1.0, mean - half), min(1.0, mean + half))


def student_t(freedom: float) -> float:
    """The 97.5 % quantile of Student's t distribution for any number of degrees of
    freedom from 1 on.

    With t = √ν tan θ the density is cos^(ν − 1) θ.
    """
    angles = np.linspace(0.0, np.pi / 2, 100_001)
    density = np.cos(angles) ** (freedom - 1)
    areas = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(
        np.sqrt(freedom) * np.tan(np.interp(CONFIDENCE * areas[-1], areas, angles))
    )
