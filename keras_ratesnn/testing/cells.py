"""The conformance check of a neuron cell."""

from collections.abc import Sequence

from keras_ratesnn._core import checks
from keras_ratesnn._core.dtype_policy import global_policy
from keras_ratesnn.layers import NeuronCell
from keras_ratesnn.testing import _cell_in_model, _cell_step
from keras_ratesnn.testing._config import check_config
from keras_ratesnn.testing._subject import Subject


def check_cell(
    cell: NeuronCell,
    shapes: Sequence[Sequence[int]] = ((5,), (3, 2, 4)),
    element_wise: bool = True,
    scale: float = 1.0,
) -> None:
    """Checks that a neuron cell conforms to `keras_ratesnn.layers.NeuronCell`, on the
    current backend.

    The cell itself is not changed: the checks run copies made from its config. They
    cover

    * config and registration: a copy made from the config is the same, and a saved file
      would find the class;
    * the step: spikes are exactly 0 or 1, also for inputs ten times as strong, and have
      a gradient with respect to the input; a cell with `levels` above 1 has integer
      spikes up to that number, times its `spike_size`; the membrane is that before the
      reset; the state has the batch as its first axis and keeps its structure, shapes
      and dtypes, nothing is stored outside the state, and samples do not affect each
      other; in half precision the state stays in float32, and spikes have the compute
      dtype; double precision is preserved, if the backend supports it;
    * the network: both step modes, compiled and eager, give the spikes of a slow loop
      over single neurons in double precision (if the backend supports it); the model
      can be saved and loaded;
    * the gradients: for one layer with constant input the rate gradient equals BPTT's,
      with respect to the input and to each trainable weight.

    A cell may draw random numbers from a `keras.random.SeedGenerator` of its own. It is
    not compared with single samples and neurons, or compiled, where it may draw others.

    The checks take a few seconds, and longer on JAX, which compiles. They need no test
    framework.

    Example:

    >>> keras_ratesnn.testing.check_cell(
    ...     keras_ratesnn.layers.LIFCell(decay=0.5), shapes=[(2,)]
    ... )

    Args:
        cell: A `NeuronCell`.
        shapes: Sequence of tuples, the shapes of test inputs, without the batch. For a
            cell that accepts only images pass `[(4, 4, 3)]`, for example. Defaults to a
            vector and an image.
        element_wise: Boolean, whether the step acts on each neuron independently. Pass
            `False` for a cell that mixes neurons: it needs a gradient through its own
            step, such as BPTT's, which is checked instead of the rate gradient and the
            loop over single neurons. Defaults to `True`.
        scale: Float > 0: the inputs are between −0.5 and 1.5 times `scale ·
            cell.threshold`. Change it for a cell that never or always spikes for these
            inputs. Defaults to `1.0`.

    Raises:
        AssertionError: If the cell does not conform; the message explains the problem.
        TypeError: If `cell` is not a `NeuronCell`, or another argument has the wrong
            type.
        ValueError: If `scale` is not > 0, or a size in `shapes` not >= 1.
    """
    checks.instance("cell", cell, NeuronCell)
    checks.boolean("element_wise", element_wise)
    scale = checks.real("scale", scale, above=0)
    shapes = _checked_shapes(shapes)
    check_config(cell)
    with global_policy("float32"):
        subjects = [Subject(cell, shape, scale) for shape in shapes]
        for subject in subjects:
            for check in _cell_step.CHECKS:
                check(subject)
        # The other checks build models: one shape is enough.
        subject = subjects[-1]
        if element_wise:
            _cell_in_model.check_element_wise(subject)
            _cell_in_model.check_single_neurons(subject)
            _cell_in_model.check_rate_gradient(subject)
        else:
            _cell_in_model.check_bptt(subject)
        _cell_in_model.check_compiled(subject)
        _cell_in_model.check_saving(subject)


def _checked_shapes(shapes):
    advice = (
        "Pass the shapes of test inputs, without the batch, for example [(5,), "
        "(3, 2, 4)]."
    )
    if not (
        isinstance(shapes, (list, tuple))
        and shapes
        and all(isinstance(shape, (list, tuple)) for shape in shapes)
    ):
        raise TypeError(
            "`shapes` must be a list of tuples of integers. Received: "
            f"shapes={shapes!r}. {advice}"
        )

    def checked(size):
        return checks.positive_integer("shapes", size, advice=advice)

    return [tuple(map(checked, shape)) for shape in shapes]
