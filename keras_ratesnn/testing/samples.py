"""The check that no sample, and no call, of a model depends on another."""

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.input_checks import check_batch
from keras_ratesnn.spiking_model import SpikingModel
from keras_ratesnn.testing._findings import require
from keras_ratesnn.testing._watched_calls import Watch, watched


def check_sample_independence(model: keras.Model, x: Structure) -> None:
    """Checks that the outputs of a model for a sample do not depend on other samples or
    on earlier calls, in inference.

    Membranes that are kept from call to call, or a batch that is taken for time, make a
    test accuracy that of the batches, not of the samples. The model is called

    * for the batch, for other samples, and for the batch again;
    * for as many copies of the first sample as there are samples, and for the batch in
      reverse order;
    * for each sample alone.

    The error names the first layer whose outputs differ for the same inputs: also a
    layer of a nested or subclassed model, or a `torch.nn.Module` inside a
    `keras.layers.TorchModuleWrapper`. The model itself is named if it is what keeps
    state.

    Only rounding is allowed: 1e-4 of a layer's largest output, 16 units of the last
    place in half precision. So that rounding does not grow to a spike, each layer gets
    in all calls bit for bit what it got in the first. A layer that sums and spikes in
    one, such as `layers.Recurrent`, may still round to another spike, about once in ten
    million. A layer that draws random numbers in inference keeps state. A
    `SpikingModel` runs in multi-step mode here; `SpikingModel.step` is meant to keep
    state.

    Example:

    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8), keras_ratesnn.layers.LIF()]
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> keras_ratesnn.testing.check_sample_independence(model, np.random.rand(3, 4))

    Args:
        model: A Keras model, spiking or not. If its calls depend on each other,
            they change its state.
        x: A batch of inputs: an array, or a structure of arrays. A few samples are
            enough; the model is called for each.

    Raises:
        AssertionError: If outputs depend on other samples or on earlier calls; the
            message names the layer.
        TypeError: If `model` is not a Keras model, or `x` does not hold numbers.
        ValueError: If `x` has fewer than two samples, or they are all the same, or it
            does not fit a `SpikingModel`.
    """
    finding = sample_dependence(model, x)
    require(not finding, finding)


def sample_dependence(model: keras.Model, x: Structure) -> str:
    """The sentence that names the first layer whose outputs for a sample depend on
    other samples or on earlier calls; `""` if there is none.

    Args:
        model: As in `check_sample_independence`.
        x: As in `check_sample_independence`.
    """
    checks.instance("model", model, keras.Model)
    if isinstance(model, SpikingModel):
        check_batch(model, x)
    x = keras.tree.map_structure(
        lambda leaf: np.asarray(ops.convert_to_numpy(checks.tensor("x", leaf))), x
    )
    samples = _checked_samples(x)
    with engine.no_gradient():
        if not model.built:
            model(x, training=False)
        watch = Watch(samples)
        with watched(model, watch):
            return next(filter(None, _findings(model, x, watch)), "")


def _checked_samples(x):
    """The number of samples."""
    leaves = keras.tree.flatten(x)
    sizes = [leaf.shape[0] if leaf.ndim else 0 for leaf in leaves]
    if len(set(sizes)) != 1 or sizes[0] < 2:
        raise ValueError(
            "`x` must be a batch of at least two samples, the same number in all "
            f"inputs. Received: x with {sizes} samples. Pass a few samples of the data."
        )
    if all(
        np.array_equal(
            leaf,
            np.broadcast_to(leaf[:1], leaf.shape),
            equal_nan=leaf.dtype.kind == "f",
        )
        for leaf in leaves
    ):
        raise ValueError(
            "`x` must have samples that differ: others could not be told from them. "
            f"Received: {sizes[0]} equal samples."
        )
    return sizes[0]


def _findings(model, x, watch):
    """The finding of each comparison in turn, `""` if all outputs are the same."""
    everyone = list(range(watch.batch))

    def differences(samples):
        watch.begin(samples)
        rows = slice(None) if samples is None else samples
        model(keras.tree.map_structure(lambda leaf: leaf[rows], x), training=False)
        return watch.differences

    differences(None)
    beside_copies = differences([0] * watch.batch)
    after_others = differences(everyone)
    yield _finding(model, after_others, "after a call with other samples", _KEPT)
    when = "beside copies of itself instead of the other samples"
    yield _finding(model, beside_copies, when, _MIXED)
    in_reverse = differences(everyone[::-1])
    yield _finding(model, in_reverse, "if the order of the batch is reversed", _MIXED)
    for sample in everyone:
        try:
            alone = differences([sample])
        except Exception as error:
            yield (
                f"Model {model.name!r} computes a batch of {watch.batch} samples, but "
                f"not one of them alone: {error}"
            )
            return
        yield _finding(model, alone, "in a batch of one", _MIXED)


def _finding(model, differences, when, why):
    if not differences:
        return ""
    layer, values = differences[0]
    what = f"Layer {layer!r} of model {model.name!r}"
    if layer == model.name:
        what = f"Model {layer!r}"
    return (
        f"{what} gives a sample other outputs {when}, from the same inputs: "
        f"{values}. {why}"
    )


_KEPT = (
    "It keeps state between calls, or draws random numbers. Start each call at "
    "rest, with the state of neurons in the call."
)

_MIXED = (
    "Samples affect each other. Does it take the batch for time, keep state "
    "between calls, or use statistics of the batch?"
)
