"""How robust a model is: its accuracy on inputs that an attacker changes a little, by the gradient of several methods."""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import backend, checks, keras_internals, registry, time_axis
from keras_ratesnn._core.accuracy import is_right
from keras_ratesnn._core.annotations import Config, Structure, Tensor
from keras_ratesnn._core.progress import Verbosity
from keras_ratesnn._model import quantization
from keras_ratesnn._model.input_checks import match, with_time
from keras_ratesnn._model.loss_checks import explained
from keras_ratesnn._model.time_masks import check_samples, masked
from keras_ratesnn.analysis import _accuracy, _figures, _text
from keras_ratesnn.gradients import BPTT, BY_NAME, GradientMethod, Rate
from keras_ratesnn.spiking_model import SpikingModel, checked_model, twin_of

MANY_WITHOUT_GRADIENT = 0.05
"""A method with a gradient of zero for more than this fraction of the samples is reported."""

ROUNDING = 1e-5
"""How far data may be outside of their bounds, as a fraction of the range: bounds are rounded in another way."""

NOISE, FGSM, PGD = "noise", "FGSM by {}", "PGD by {}"
"""The names of the attacks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Robustness:
    """The result of `robustness`; it can be printed.

    Args:
        name: String, the name of the model.
        timesteps: Integer T.
        samples: Integer, the number of samples.
        accuracy: Float, the accuracy without an attack.
        epsilons: Array `(E,)`: how far each element of an input may be changed, as a fraction of the range of inputs.
        attacks: Tuple of strings, the A attacks: `"noise"`, and `"FGSM by METHOD"` and `"PGD by METHOD"` for each method.
        attacked: Array `(A, E)`: the accuracy under each attack.
        robust: Array `(E,)`: the fraction of samples that are right under every attack, with this epsilon and smaller ones.
        without_gradient: Dict from each method to the fraction of samples, of those that are right without an attack, for which
            its gradient is zero.
        masked: Tuple of strings: the signs that gradients do not lead to the strongest attack, empty if there are none.
    """

    name: str
    timesteps: int
    samples: int
    accuracy: float
    epsilons: np.ndarray
    attacks: tuple[str, ...]
    attacked: np.ndarray
    robust: np.ndarray
    without_gradient: dict[str, float]
    masked: tuple[str, ...]

    def __str__(self) -> str:
        columns = ["accuracy with epsilon", *(f"{epsilon:.4g}" for epsilon in self.epsilons)]
        attacks = zip((*self.attacks, "all attacks"), (*self.attacked, self.robust), strict=True)
        rows = [[name, *(f"{accuracy:.4f}" for accuracy in accuracies)] for name, accuracies in attacks]
        first = f"{self.name}: {self.samples} samples, {self.timesteps} time steps, accuracy {self.accuracy:.4f}"
        return "\n".join([first, *_text.table(columns, rows, left=1), *(f"MASKED: {sign}" for sign in self.masked)])

    def plot(self) -> Any:
        """Draws the accuracy under each attack, and under all of them, against epsilon.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        figure, axes = _figures.new_figure(6.4, 4.2)
        epsilons, methods = [0.0, *self.epsilons], list(self.without_gradient)
        for name, accuracies in zip(self.attacks, self.attacked, strict=True):
            index = 0 if name == NOISE else methods.index(name.split(" by ", 1)[1])
            style = {"linestyle": ":", "color": "0.5"} if name == NOISE else {"color": _figures.shade(index, len(methods))}
            if name.startswith(FGSM.format("")):
                style["linestyle"] = "--"
            marker = "" if name == NOISE else _figures.MARKERS[index % len(_figures.MARKERS)]
            axes.plot(epsilons, [self.accuracy, *accuracies], label=name, marker=marker, **style)
        robust, look = np.array([self.accuracy, *self.robust]), {"color": "black", "linewidth": 2.5, "capsize": 3}
        _accuracy.draw(axes, epsilons, robust, self.samples, f"all attacks, {self.samples} samples", **look)
        axes.set(xlabel="epsilon, as a fraction of the range of inputs", ylabel="accuracy", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        return figure


def robustness(
    model: SpikingModel,
    x: Structure,
    y: Any,
    epsilons: Sequence[float],
    gradients: Sequence[str | GradientMethod | Config] | None = None,
    bounds: tuple[Any, Any] = (0.0, 1.0),
    steps: int = 10,
    step_size: float | None = None,
    loss: Any = None,
    seed: int = 0,
    batch_size: int = 128,
    threshold: float = 0.5,
    verbose: Verbosity = "auto",
) -> Robustness:
    """Measures the accuracy of a model on inputs that an attacker changes, each element by epsilon at most.

    Spikes have no derivative of their own: an attacker follows that of a training method, and the one that trained a network
    need not be the one that breaks it. So each method attacks the same network, and a sample is robust if no attack finds an
    input that is classified wrongly:

    * FGSM: one step of size epsilon, along the sign of the gradient of the loss (Goodfellow et al., ICLR 2015).
    * PGD: from a random start in the box of ± epsilon, `steps` steps along the sign, back into the box after each (Madry et
      al., ICLR 2018). Every input on the way counts.
    * Noise: `steps` random corners of the box, without a gradient.

    A warning says where gradients are masked, so that a low number of errors says nothing (Athalye et al., ICML 2018): one step
    or noise finds clearly more errors than many steps, a larger epsilon finds fewer, or the gradient of many samples is zero.
    "Clearly" is more than twice the standard error of the difference, sample by sample. Other attacks may still be stronger.

    The model runs in inference mode, in its own step mode, and is not changed: neither weights nor moving statistics nor seeds.
    Random layers, such as a `BernoulliEncoder`, draw the same numbers in each call, which the attacker knows. Inputs that are
    integers are changed as real numbers. Steps that are padding by the model's `mask_value` remain padding.

    Example:

    >>> model = keras_ratesnn.models.load_pretrained("digits")
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> x, y = np.full((4, 8, 8, 1), 8.0), np.zeros(4)
    >>> found = robustness(model, x, y, epsilons=[0.03, 0.1], bounds=(0, 16), gradients=["rate"], loss=loss, verbose=0)
    >>> found.attacks, found.attacked.shape
    (('noise', 'FGSM by rate', 'PGD by rate'), (3, 2))

    Args:
        model: A `SpikingModel` with one input and one output `(batch, classes)`.
        x: Inputs, as for `model.predict`.
        y: Array, the labels: class indices, one-hot vectors, or 0 and 1 for a single output, as for `"accuracy"` in Keras.
        epsilons: Sequence of floats in (0, 1] that increase: the largest change, as a fraction of the range of inputs, for
            example 8 / 255 for eight grey levels.
        gradients: Sequence of names or `GradientMethod`, the methods that attack. Defaults to `None`: `"rate"`,
            `Rate(windows=2)` and `"bptt"`, without those that are the same for the T of the model.
        bounds: Pair of the smallest and the largest value of inputs, in their own units: `(0, 255)` for images of 8 bits that
            the network scales itself. For inputs that were standardised before, two arrays that broadcast to a sample. Defaults
            to `(0.0, 1.0)`.
        steps: Integer >= 1, those of PGD, and the number of random corners. Defaults to `10`.
        step_size: Float in (0, 1], the size of a step of PGD as a fraction of epsilon. Defaults to `None`, 2.5 / steps, or 1 if
            that is less.
        loss: The loss that the attacker raises, for the mean output, as in `compile`. Defaults to `None`, that of the compiled
            model, without what layers add.
        seed: Integer >= 0, of the random starts and corners, which are the same on all backends. Defaults to `0`.
        batch_size: Integer, the number of samples that are processed at once. Defaults to `128`.
        threshold: Float, the output above which a binary label is 1; 0 for logits. Defaults to `0.5`.
        verbose: `"auto"`, 0, 1 or 2, as in `model.predict`: 1 shows a progress bar, 2 a line at the end, 0 nothing. Defaults to
            `"auto"`, which is 1.

    Returns:
        `Robustness`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or an argument has the wrong type.
        ValueError: If the model cannot be attacked (several inputs or outputs, inputs of integers, samples that depend on each
            other), there is no loss, a method cannot train the model, values of `x` are outside of `bounds`, labels are no
            classes, or a number is out of its range.

    Source: Athalye, Carlini and Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018.
    """
    model = checked_model(model)
    methods = _checked_methods(model, gradients)
    sizes = _checked_epsilons(epsilons)
    steps = checks.positive_integer("steps", steps, advice="It is the number of steps of PGD.")
    step_size = min(1.0, 2.5 / steps) if step_size is None else step_size
    step_size = checks.real("step_size", step_size, above=0, at_most=1, advice="It is a fraction of epsilon.")
    seed = checks.integer("seed", seed, at_least=0)
    threshold = checks.real("threshold", threshold)
    _check_attackable(model, x, y)
    (x,) = match(_graph.as_graph(model.network), x)
    limits = _checked_bounds(model, x, bounds)
    loss = _checked_loss(model, loss)
    predict = _compiled(model, BPTT(), None, threshold)
    ascents = {name: _compiled(model, method, loss, threshold) for name, method in methods.items()}
    right, slopes, wrong = [], [], []
    for number, (inputs, labels) in enumerate(_accuracy.batches(model, x, y, batch_size, verbose)):
        batch = _Batch(ops.convert_to_numpy(inputs).astype("float32"), labels, _mask_of(model, inputs), *limits)
        right.append(batch.tried(predict, batch.x)[0])
        directions = {name: batch.tried(ascend, batch.x)[1] for name, ascend in ascents.items()}
        slopes.append([direction.any(axis=tuple(range(1, direction.ndim))) for direction in directions.values()])
        random = np.random.default_rng([seed, number])
        wrong.append([_attacked(batch, size, steps, step_size, predict, ascents, directions, random) for size in sizes])
    before, has_gradient = np.concatenate(right), np.concatenate(slopes, axis=1)
    lost = before & np.concatenate(wrong, axis=2).swapaxes(0, 1)
    without = (before & ~has_gradient).sum(axis=1) / max(1, before.sum())
    found = Robustness(
        name=model.name,
        timesteps=model.timesteps,
        samples=len(before),
        accuracy=float(before.mean()),
        epsilons=np.array(sizes),
        attacks=(NOISE, *(attack.format(name) for name in methods for attack in (FGSM, PGD))),
        attacked=(before & ~lost).mean(axis=2),
        robust=(before & ~np.logical_or.accumulate(lost.any(axis=0), axis=0)).mean(axis=1),
        without_gradient=dict(zip(methods, without.tolist(), strict=True)),
        masked=tuple(_signs(list(methods), sizes, lost, without)),
    )
    if found.masked:
        warnings.warn(
            f"Gradients of model {model.name!r} are masked, and it may be less robust than found here: "
            f"{'; '.join(found.masked)}. What other methods find counts. Attack with more `steps`, other `gradients`, or a "
            "wider surrogate.",
            stacklevel=2,
        )
    return found


class _Batch(NamedTuple):
    """Inputs that are attacked, with their labels, the mask of their steps, and the bounds of a sample."""

    x: np.ndarray
    y: Tensor
    mask: Tensor | None
    low: np.ndarray
    high: np.ndarray

    def near(self, points, size):
        """The points that are nearest to others in the box, which goes as far as a fraction of the range of inputs."""
        far = size * (self.high - self.low)
        return np.clip(points, np.maximum(self.x - far, self.low), np.minimum(self.x + far, self.high))

    def tried(self, function, points):
        """What a function of `_compiled` returns for points in the place of the inputs, arrays."""
        with backend.repeated_noise(backend.noise_state()):
            return [ops.convert_to_numpy(found) for found in function(ops.convert_to_tensor(points), self.y, self.mask)]


def _attacked(batch, size, steps, step_size, predict, ascents, directions, random):
    """Which samples of a batch are wrong under each attack of one size, in the order of `attacks`, a list of arrays."""
    far = size * (batch.high - batch.low)

    def is_wrong(points):
        return ~batch.tried(predict, points)[0]

    start = batch.near(batch.x + far * random.uniform(-1, 1, batch.x.shape).astype("float32"), size)
    corners = (batch.x + far * random.choice(np.array([-1, 1], "float32"), batch.x.shape) for _ in range(steps))
    found = [np.logical_or.reduce([is_wrong(batch.near(corner, size)) for corner in corners])]
    for name, ascend in ascents.items():
        found.append(is_wrong(batch.near(batch.x + far * directions[name], size)))
        points, on_the_way = start, []
        for _ in range(steps):
            right, direction = batch.tried(ascend, points)
            on_the_way.append(~right)
            points = batch.near(points + step_size * far * direction, size)
        found.append(np.logical_or.reduce([*on_the_way, is_wrong(points)]))
    return found


def _compiled(model, method, loss, threshold):
    """A function of inputs, labels and a mask of steps, without side effects.

    It returns which samples are right, and unless the loss is `None` the direction in which it grows: the sign of its gradient,
    0 where that is not finite.
    """
    twin = twin_of(model, method, model.step_mode, mask_value=None)
    variables, dtype = twin.variables, time_axis.accumulation_dtype(model.variable_dtype)

    def outputs_for(values, x, mask):
        with keras_internals.Tried(twin, zip(variables, values, strict=True), backend.assigned_weight):
            return time_axis.widen(twin(x, training=False, mask=mask))

    def right(y, outputs):
        # Keras has an accuracy for each binary output.
        return ops.all(ops.reshape(is_right(y, outputs, "auto", threshold), (outputs.shape[0], -1)) > 0, axis=1)

    def run(values, x, y, mask):
        def raised(x):
            outputs = outputs_for(values, x, mask)
            # A sum: the gradient of a mean of many samples is smaller than half precision holds.
            return [time_axis.cast(ops.sum(loss(y, outputs)), dtype)], outputs

        if loss is None:
            with backend.no_gradient():
                return [right(y, outputs_for(values, x, mask))]
        (gradient,), outputs = backend.gradient_of(raised, [backend.differentiable(x)], [ops.ones((), dtype)])
        gradient = ops.zeros_like(x) if gradient is None else gradient
        direction = ops.where(ops.isfinite(gradient), ops.sign(gradient), ops.zeros((), gradient.dtype))
        return [right(y, outputs), direction]

    compiled = backend.traced(run)
    return lambda *arguments: compiled([ops.convert_to_tensor(variable.value) for variable in variables], *arguments)


def _mask_of(model, inputs):
    """The mask of the steps of a batch, `(batch, T)`, which changed inputs keep; `None` if all steps count."""
    network = _graph.as_graph(model.network)
    return masked(network, with_time(network, inputs, model.timesteps), None, model.mask_value)[1]


def _signs(methods, sizes, lost, without):
    """The signs that the gradient of a method leads nowhere, sentences.

    Args:
        methods: List of the names of methods.
        sizes: List of epsilons.
        lost: Boolean array `(attacks, epsilons, samples)`: which samples are right before an attack and wrong under it.
        without: List of the fraction of samples for which the gradient of each method is zero.
    """
    noise, single, many = lost[0], lost[1::2], lost[2::2]
    for name, by_one, by_many, share in zip(methods, single, many, without, strict=True):
        if share > MANY_WITHOUT_GRADIENT:
            yield f"the gradient by {name} is zero for {share:.0%} of the samples"
        for attack, errors in ((FGSM.format(name), by_one), (NOISE, noise)):
            at = [f"{size:.4g}" for size, more, fewer in zip(sizes, errors, by_many, strict=True) if _clearly_more(more, fewer)]
            if at:
                yield f"{attack} finds more errors than {PGD.format(name)} at epsilon {', '.join(at)}"
        for (smaller, more), (larger, fewer) in itertools.pairwise(zip(sizes, by_many, strict=True)):
            if _clearly_more(more, fewer):
                yield f"{PGD.format(name)} finds fewer errors at epsilon {larger:.4g} than at {smaller:.4g}"


def _clearly_more(errors, others):
    """Whether an attack finds more errors than another, by more than two standard errors of the difference (McNemar)."""
    more, fewer = int((errors & ~others).sum()), int((others & ~errors).sum())
    return more - fewer > 2 * math.sqrt(more + fewer)


def _checked_methods(model, gradients):
    """The methods that attack, by their names."""
    if gradients is None:
        # At T = 1 all are the same, and at T = 2 two windows are BPTT.
        gradients = {1: ["bptt"], 2: ["rate", "bptt"]}.get(model.timesteps, ["rate", Rate(windows=2), "bptt"])
    if not isinstance(gradients, (list, tuple)):
        raise checks.wrong_type("gradients", "a list of names or methods", gradients)
    if not gradients:
        raise ValueError(f"`gradients` must not be empty. Received: gradients={gradients!r}. Name one, such as 'bptt'.")
    methods = [registry.resolve(f"gradients[{i}]", of, GradientMethod, BY_NAME) for i, of in enumerate(gradients)]
    for method in methods:
        method.check(_graph.neurons_of(_graph.as_graph(model.network)))
        method.check_timesteps(model.timesteps)
    return {_text.name_of(method): method for method in methods}


def _checked_epsilons(epsilons):
    advice = "They are fractions of the range of inputs, for example (2 / 255, 8 / 255)."
    if not isinstance(epsilons, (list, tuple, np.ndarray)) or np.ndim(epsilons) != 1:
        raise checks.wrong_type("epsilons", "a list of numbers", epsilons, advice)
    found = [checks.real(f"epsilons[{i}]", of, above=0, at_most=1, advice=advice) for i, of in enumerate(epsilons)]
    if not found or any(after <= before for before, after in itertools.pairwise(found)):
        raise ValueError(f"`epsilons` must be at least one number, and increase. Received: epsilons={epsilons!r}. {advice}")
    return found


def _check_attackable(model, x, y):
    """Raises ValueError if a model is no classifier of one input with a gradient, or data and labels do not fit."""
    network = _graph.as_graph(model.network)
    _graph.check_trainable(network)
    quantization.check_trainable(model)
    check_samples(model, x)
    _accuracy.check_labels(x, y)
    dtypes = [tensor.dtype for tensor in network.inputs]
    if len(dtypes) > 1 or not time_axis.is_float(dtypes[0]):
        raise ValueError(
            "`model` must have one input of floats, which is changed. Received: model "
            f"{model.name!r} with inputs of {', '.join(dtypes)}. Attack the part of the network after an Embedding."
        )
    outputs = _accuracy.only_output(model, keras_internals.outputs_structure(network))
    if len(outputs.shape) != 2:
        raise ValueError(
            "`model` must classify samples: an output (batch, classes). Received: model "
            f"{model.name!r} with the output shape {tuple(outputs.shape)}."
        )
    _accuracy.check_classes(model, "y", ops.convert_to_numpy(y))


def _checked_bounds(model, x, bounds):
    """The smallest and the largest inputs, two arrays of the shape of a sample."""
    data = ops.convert_to_numpy(x)
    advice = "Pass what inputs can be in their own units, such as bounds=(0, 255) for images of 8 bits."
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2 or not all(map(checks.holds_numbers, bounds)):
        raise checks.wrong_type("bounds", "a pair of numbers, or of arrays", bounds, advice)
    try:
        low, high = (np.broadcast_to(np.asarray(ops.convert_to_numpy(of), "float32"), data.shape[1:]) for of in bounds)
    except ValueError as error:
        raise ValueError(
            f"`bounds` must broadcast to samples of shape {data.shape[1:]}. Received: {bounds}. {advice}"
        ) from error
    if not (np.isfinite(high - low) & (low < high)).all():
        raise ValueError(f"`bounds` must be finite, the first below the second. Received: bounds={bounds}. {advice}")
    mask = _mask_of(model, ops.convert_to_tensor(data))
    counts = np.ones((len(data),), bool) if mask is None else ops.convert_to_numpy(mask)
    beyond = ROUNDING * (high - low)
    inside = (data >= low - beyond) & (data <= high + beyond)
    if not inside[counts].all():
        values = data[counts]
        raise ValueError(
            f"`x` must be within `bounds`. Received: bounds={bounds}, values from {values.min():.6g} to {values.max():.6g}. "
            f"{advice}"
        )
    return low, high


def _checked_loss(model, loss):
    """The function of labels and outputs that is raised, the losses of samples."""
    if loss is None:
        compiled = keras.tree.flatten(keras_internals.compiled_loss(model).get("loss"))
        if model.return_sequences or len(compiled) != 1 or compiled[0] is None:
            raise ValueError(
                "`loss` must be given for a model that was not compiled with one for the mean output. Received: loss=None, "
                f"model {model.name!r} with return_sequences={model.return_sequences}. Pass it as to compile, for example "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
        (loss,) = compiled
    of_samples = keras_internals.loss_of_samples(keras.losses.get(loss))

    def raised(y, outputs):
        with explained(loss, y, outputs):
            return of_samples(y, outputs)

    return raised
