"""Gradients of the training loss of a model, which is not changed."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model import data_checks
from keras_ratesnn.analysis import _accuracy, _observation
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.spiking_model import SpikingModel, checked_model, twin_of


class Training:
    """A training step of a model on a batch, without the update.

    Random layers draw the same numbers in each step, those of the next training step of
    the model.

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs.
        y: A structure of arrays, the labels.
        loss: As in `compile`, or `None` for the loss that the model was compiled with.

    Raises:
        TypeError: If `model` is not a `SpikingModel`.
        ValueError: If there is no loss, `x` and `y` do not have the same number of
            samples, or the backend would lose gradients of its layers. `gradients`
            raises it for a label that is of no class.
    """

    def __init__(self, model: SpikingModel, x: Structure, y: Any, loss: Any) -> None:
        self.model = checked_model(model)
        self.x = _observation.tensors(self.model, x)
        _accuracy.check_labels(self.x, y)
        self.y = keras.tree.map_structure(ops.convert_to_numpy, y)
        self._loss = (
            keras_internals.compiled_loss(model) if loss is None else {"loss": loss}
        )
        # A subclass may compute a loss of its own, as tasks of other libraries do.
        self._is_own = (
            loss is None
            and model.compiled
            and type(model).compute_loss is not SpikingModel.compute_loss
        )
        if not self._loss and not self._is_own:
            raise ValueError(
                "`loss` must be given for a model that was not compiled with one. "
                f"Received: loss=None, model {model.name!r}. Pass it as to compile, "
                "for example "
                "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
            )
        engine.check_replaced_weights(
            _graph.as_graph(model.network), ", for an analysis"
        )

    def run(self, method: GradientMethod) -> None:
        """Runs the step in multi-step mode, without gradient."""
        twin = self._twin(method, "multi")
        with self._unchanged(twin, ()), engine.no_gradient():
            twin(self.x, training=True)

    def gradients(
        self,
        method: GradientMethod,
        step_mode: str,
        variables: Sequence[keras.Variable],
        tensors: Sequence[Tensor] = (),
        start: Callable[..., None] = lambda *tensors: None,
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The gradients of the loss with respect to variables, and to tensors.

        Args:
            method: `GradientMethod`.
            step_mode: As in `SpikingModel`.
            variables: Variables of the model.
            tensors: What the loss is differentiated with respect to, besides. Defaults
                to `()`.
            start: Function, called with these tensors, as they are differentiated,
                before the model runs. Defaults to one that does nothing.

        Returns:
            `(gradients of variables, gradients of tensors)`; `None` or zeros where the
            loss does not depend on one.
        """
        twin, count = self._twin(method, step_mode), len(variables)
        owner = self.model if self._is_own else twin
        if not self._is_own:
            twin.compile(**self._loss, jit_compile=False)
        data_checks.check_labels(owner, self.y)
        y = keras.tree.map_structure(ops.convert_to_tensor, self.y)
        keras_internals.build_loss(owner, self.x, y, twin.compute_output_spec(self.x))

        dtype = time_axis.accumulation_dtype(self.model.variable_dtype)

        def loss(*inputs):
            start(*inputs[count:])
            with self._unchanged(twin, zip(variables, inputs[:count], strict=True)):
                outputs = twin(self.x, training=True)
                value = owner.compute_loss(self.x, y, outputs)
                # Keras computes losses in its default dtype.
                return [time_axis.cast(value, dtype)], ()

        values = [ops.convert_to_tensor(variable.value) for variable in variables]
        inputs = [engine.differentiable(tensor) for tensor in (*values, *tensors)]
        gradients, _ = engine.gradient_of(loss, inputs, [ops.ones((), dtype)])
        return gradients[:count], gradients[count:]

    def _twin(self, method, step_mode):
        return twin_of(
            self.model, method, step_mode, return_sequences=self.model.return_sequences
        )

    @contextlib.contextmanager
    def _unchanged(self, twin, values):
        """A context in which a model is run with other values of some variables, and
        left as it was."""
        fixed = [
            (variable, ops.convert_to_tensor(variable.value))
            for variable in twin.trainable_variables
        ]
        with (
            engine.repeated_noise(engine.noise_state()),
            keras_internals.Tried(twin, [*fixed, *values], engine.assigned_weight),
        ):
            yield


def kernels_of(model: SpikingModel) -> dict[str, keras.Variable]:
    """The trainable weights with two or more axes, from the first layer to the last, by
    the names of their layers."""
    kernels = [
        variable for variable in model.trainable_variables if len(variable.shape) > 1
    ]
    layers = [variable.path.split("/")[-2] for variable in kernels]
    names = _graph.Names()
    return {
        names.add(layer if layers.count(layer) == 1 else variable.path): variable
        for layer, variable in zip(layers, kernels, strict=True)
    }


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """The cosine similarity of two arrays; NaN if one is zero."""
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(np.sum(left * right) / norms) if norms else float("nan")
