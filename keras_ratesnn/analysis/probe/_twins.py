"""Twins: the same network, trained in ways that see more and more of time, under one
budget."""

import dataclasses
import json
import re
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.analysis import _accuracy
from keras_ratesnn.analysis.accuracy.shuffle_in_time import shuffle_in_time
from keras_ratesnn.analysis.probe._frames import Frames
from keras_ratesnn.analysis.probe._twin_folder import TwinFolder, TwinResult
from keras_ratesnn.gradients import BPTT, SLTT, GradientMethod, Rate
from keras_ratesnn.spiking_model import SpikingModel

MEAN, SHUFFLED, GIVEN = "mean", "shuffled", "given"

WINDOWS = 1, 2, 4


@dataclasses.dataclass(frozen=True)
class Twin:
    """A way of training.

    Args:
        name: String.
        frames: What it sees of inputs with time: `"mean"`, the mean of the frames;
            `"shuffled"`, the frames in another order; or `"given"`, the data as they
            are.
        timesteps: Integer, its number of time steps.
        gradient: Its `GradientMethod`.
    """

    name: str
    frames: str
    timesteps: int
    gradient: GradientMethod


def ladder(timesteps: int, in_time: bool) -> list[Twin]:
    """The twins for a number of time steps, from the one that sees least of time on.

    What frames tell is measured with BPTT, which misses nothing of time. At one step
    all methods have the same gradient.
    """
    twins = [Twin("one-step", MEAN, 1, Rate())]
    if in_time:
        twins.append(Twin("mean", MEAN, timesteps, BPTT()))
        twins.append(Twin("shuffled", SHUFFLED, timesteps, BPTT()))
    twins.append(Twin("sltt", GIVEN, timesteps, SLTT()))
    for windows in WINDOWS:
        # As many windows as steps have BPTT's gradient.
        if windows < timesteps:
            twins.append(Twin(f"rate-{windows}", GIVEN, timesteps, Rate(windows)))
    twins.append(Twin("bptt", GIVEN, timesteps, BPTT()))
    return twins


class Examples(NamedTuple):
    """Inputs, `Frames`, and an array of their labels."""

    x: Frames
    y: np.ndarray

    @property
    def arrays(self) -> list[np.ndarray]:
        """All inputs, and the labels."""
        return [*keras.tree.flatten(self.x.given), self.y]


class Budget(NamedTuple):
    """The settings that all twins share; the arguments are those of
    `temporal_probe`."""

    make_model: Callable[[], SpikingModel]
    train: Examples
    validation: Examples
    epochs: int
    batch_size: int
    threshold: float

    def described(self, model: SpikingModel) -> Config:
        """A description that tells this budget from others, as plain values; the model,
        its settings and the data by their checksums.

        Args:
            model: The model that `make_model` makes for the first seed.
        """
        config = keras.saving.serialize_keras_object(model)
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "threshold": self.threshold,
            "backend": keras.backend.backend(),
            "network": _checksum_of_config(config["config"]),
            "weights": _checksum_of_arrays(_arrays(model.weights)),
            "compile": _checksum_of_config(config["compile_config"]),
            "data": _checksum_of_arrays(self.train.arrays),
            "validation_data": _checksum_of_arrays(self.validation.arrays),
        }


class Twins:
    """Trains twins. Those with the same gradient and number of steps share a model,
    with its compiled functions.

    Args:
        budget: `Budget`.
        twins: List of `Twin`.
        folder: `TwinFolder`, or `None` to keep nothing.

    Attributes:
        all: List of the twins that the network can have.
        left_out: Dict from the names of the twins that it cannot have to the reason.

    Raises:
        TypeError: If `make_model` does not return a `SpikingModel`.
        ValueError: If it returns a model that is not compiled, has several outputs or
            one for each step, or shares weights with another.
    """

    def __init__(
        self, budget: Budget, twins: list[Twin], folder: TwinFolder | None
    ) -> None:
        self._budget, self._folder = budget, folder
        self._models: dict[tuple[int, str], Learner] = {}
        self._initial: tuple[int | None, list[np.ndarray]] = None, []
        self.left_out: dict[str, str] = {}
        self.all = [twin for twin in twins if self._is_possible(twin)]

    def result(self, twin: Twin, seed: int) -> TwinResult:
        """Trains and tests a twin, unless the folder has the result.

        Raises:
            ValueError: If the loss is not finite.
        """
        result = None if self._folder is None else self._folder.result(twin.name, seed)
        if result is None:
            learner = self._models[_key(twin)]
            # One mean frame has no steps that could be padding.
            is_one_frame = twin.frames == MEAN and twin.timesteps == 1
            padding = None if is_one_frame else learner.mask_value
            learner.model.mask_value = padding
            earlier = self._trained(twin, seed)
            right, shuffled = self._right(twin, seed), self._shuffled(twin, seed)
            result = TwinResult(right, earlier, shuffled)
            if self._folder is not None:
                self._folder.keep_result(twin.name, seed, result)
        return result

    def _is_possible(self, twin):
        if _key(twin) in self._models:
            return True
        model = checked(self._budget.make_model())
        if any(
            model.variables[0] is learner.model.variables[0]
            for learner in self._models.values()
        ):
            raise ValueError(
                "`make_model` must return a new network at each call. Received: models "
                "that share weights. Build the layers inside the function."
            )
        try:
            model.timesteps, model.gradient = twin.timesteps, twin.gradient
        except ValueError as error:
            self.left_out[twin.name] = str(error)
            return False
        self._models[_key(twin)] = Learner(model)
        return True

    def _trained(self, twin, seed):
        """Trains the model of a twin; returns what it had right before the last quarter
        of the epochs."""
        learner, budget = self._models[_key(twin)], self._budget
        begun = None
        if self._folder is not None:
            begun = self._folder.unfinished(twin.name, seed)
        if begun is None:
            values = [*self._initial_weights(seed), *learner.fresh]
            begun = 0, np.zeros(0), values
        epochs, earlier, values = begun
        learner.assign(values)
        x, y = _seen(twin, budget.train.x, [seed, 0]), budget.train.y
        for epoch in range(epochs, budget.epochs):
            if epoch == budget.epochs - max(1, budget.epochs // 4):
                earlier = self._right(twin, seed)
            random = np.random.default_rng([seed, epoch])
            order, noise = random.permutation(len(y)), int(random.integers(2**31))
            loss = learner.fit_epoch(x, y, order, budget.batch_size, epoch, noise)
            if not np.isfinite(loss):
                raise ValueError(
                    "`make_model` must return a model that can be trained. Received: "
                    f"a loss of {loss} in epoch {epoch + 1} of {twin.name!r}, seed "
                    f"{seed}. Use a smaller learning rate."
                )
            if self._folder is not None:
                self._folder.keep_unfinished(
                    twin.name, seed, epoch + 1, earlier, learner.values()
                )
        return earlier

    def _right(self, twin, seed):
        (frames, y), size = self._budget.validation, self._budget.batch_size
        outputs = self._models[_key(twin)].model.predict(
            _seen(twin, frames, [seed, 1]), batch_size=size, verbose=0
        )
        return _accuracy.right(y, outputs, self._budget.threshold)

    def _shuffled(self, twin, seed):
        if twin.frames != GIVEN:
            return float("nan")
        (frames, y), model = self._budget.validation, self._models[_key(twin)].model
        return shuffle_in_time(
            model, frames.given, y, seed, threshold=self._budget.threshold, verbose=0
        ).shuffled

    def _initial_weights(self, seed):
        """The weights with which all twins begin for a seed, and the states of random
        generators."""
        before, values = self._initial
        if before == seed:
            return values
        keras.utils.set_random_seed(seed)
        model = checked(self._budget.make_model())
        weights = _arrays(model.variables)
        if before is not None and all(map(np.array_equal, values, weights)):
            warnings.warn(
                "`make_model` gives the same initial weights for each seed: error bars "
                "then say nothing of these. Set no seed in it, unless it starts from "
                "trained weights.",
                stacklevel=4,
            )
        self._initial = seed, weights
        return weights


class Learner:
    """A compiled model, which can be trained from the beginning again and again."""

    def __init__(self, model):
        self.model, self.mask_value = model, model.mask_value
        model.optimizer.build(model.trainable_variables)
        self._variables = [*model.variables, *model.optimizer.variables]
        self.fresh = _arrays(model.optimizer.variables)

    def values(self):
        return _arrays(self._variables)

    def assign(self, values):
        shapes = [variable.shape for variable in self._variables]
        if shapes != [value.shape for value in values]:
            raise ValueError(
                "`make_model` must build the same network at each call. Received: "
                "models whose weights have other shapes."
            )
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)

    def fit_epoch(self, x, y, rows, batch_size, epoch, noise):
        """Trains for an epoch, with the samples in this order and the global generators
        at a seed; returns the loss."""

        def seed_noise(batch, logs=None):
            # Not before: PyTorch's loaders draw from the generator of dropout when they
            # start, some more often than others.
            if batch == 0:
                keras.utils.set_random_seed(noise)

        history = self.model.fit(
            keras.tree.map_structure(lambda leaf: leaf[rows], x),
            y[rows],
            batch_size=batch_size,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_begin=seed_noise)],
        ).history
        return history["loss"][0]


def checked(model: Any) -> SpikingModel:
    """A model from `make_model`; raises TypeError or ValueError unless it is a compiled
    `SpikingModel` with one output."""
    advice = "It builds and compiles a SpikingModel."
    if not isinstance(model, SpikingModel):
        raise checks.wrong_type(
            "make_model", "a function that returns a SpikingModel", model, advice
        )
    if not model.compiled:
        raise ValueError(
            "`make_model` must return a compiled model: its optimizer and loss train "
            f"all twins. Received: model {model.name!r}, which is not compiled. Call "
            "model.compile(optimizer, loss) in it."
        )
    if model.return_sequences or len(model.outputs) != 1:
        raise ValueError(
            "`make_model` must return a model with one output, whose accuracy is "
            f"measured. Received: model {model.name!r} with {len(model.outputs)} "
            f"outputs and return_sequences={model.return_sequences}."
        )
    return model


def _key(twin):
    return twin.timesteps, repr(twin.gradient)


def _seen(twin: Twin, frames: Frames, seeds: list[int]) -> Structure:
    """The inputs that a twin sees."""
    if twin.frames == MEAN:
        return frames.mean() if twin.timesteps == 1 else frames.mean_at_each_step()
    if twin.frames == SHUFFLED:
        return frames.shuffled(np.random.default_rng(seeds))
    return frames.given


def _arrays(variables):
    return [ops.convert_to_numpy(variable.value).copy() for variable in variables]


def _checksum_of_config(config):
    # Keras numbers the names of layers through all models of a process.
    text = re.sub(r'_\d+"', '"', json.dumps(config, sort_keys=True))
    return zlib.crc32(text.encode())


def _checksum_of_arrays(arrays):
    checksum = 0
    for leaf in arrays:
        kind = f"{leaf.shape} {leaf.dtype}".encode()
        checksum = zlib.crc32(kind + np.ascontiguousarray(leaf).tobytes(), checksum)
    return checksum
