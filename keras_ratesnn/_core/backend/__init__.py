"""What Keras has no portable function for, once per backend: `jax.py`, `tensorflow.py` and `torch.py` define the same names.
`graph_compiled.py` has what the first two share.

* `check_equal(size, wanted, message)`: raises an error if two numbers, of which a tensor knows one at run time only, differ.
* `fusing(allowed)`: a context in which `elementwise` may compile.
* `elementwise(function, cell, key, *arguments)`: `function(*arguments)`, of structures of tensors and numbers, in one pass over
  memory where that pays. The function reads the weights of the neuron cell `cell` and no others, and changes nothing; what it
  does is decided by the cell, its arguments and the hashable `key`.
* `finite_rows(tensor, rows)`: for each of so many equal parts of a tensor, whether all of it is finite.
* `gradient_of(function, inputs, upstream)`: `(gradients, rest)` of `function(*inputs)`, which returns a list of tensors, whose
  gradients are `upstream`, and a structure `rest` of tensors that is not differentiated. The gradients may be `None`.
* `graft(value, onto, slope)`: `value`, with a derivative of our choice.
* `jvp(function, primals, tangents)`: what a function of tensors returns, a list of them, and its derivative in one direction.
* `no_gradient()`: a context in which nothing is recorded for a backward pass.
* `noise_state()`, `set_noise_state(state)`: what beside the seeds of layers decides which random numbers Keras draws.
* `without_gradient(function)`: what `function()` returns, a structure of tensors and numbers, without gradient.
* `grad_enabled()`: whether what is computed now may be differentiated later.
* `derivative_only()`: a context for results whose derivative is wanted and whose value is not.
* `optimization_barrier(tensors)`: the tensors, each computed before any is used.
* `reading_once(network)`: a context for all forward passes of a training step, so that the backward pass sees the weights of a
  network as they were before it. No losses can be added in it.
* `replaceable(layer)`: the variables of a layer that may be given tensors in their place, whose gradients are then found.
* `layout_kept(repeated)`: a context in which Keras' layers do not copy `channels_last` data into another order, to be entered
  for each call of a layer; `repeated`, if every layer is called again and again on data of one shape.
* `multiply_add(x, factor, y)`: x · factor + y, of which memory sees one operation.
* `normalize(inputs, axis, gamma, beta, epsilon, synchronized)`: a batch normalised by its own statistics over all axes but
  `axis`; returns outputs in the dtype of the inputs or wider, and mean and variance without gradient. These, as γ and β (or
  `None`), are of the shape `(channels,)` and in float32 or wider.
* `normalize_as(inputs, axis, gamma, beta, mean, variance, epsilon, synchronized, weights=None)`: γ (x − μ) / sqrt(σ² + ε) + β
  by given statistics, with the derivative that it has if μ and σ² change as the batch's own do; `weights` are of its rows.
* `with_backward(values, inputs, others, backward)`: `values`, a list of tensors, with the gradients to the tensors `inputs`
  that `backward(inputs, others, upstream)` gives; that function may use no other tensors than these.
* `untraced(function)`: the function, at which a compiler that takes Python line by line stops.
* `ranks_of_batch(data)`: `(ranks, data)`: the ranks of what a compiled function of Keras is given, where such a function cannot
  be compiled for several; `data` may be used once, as before.
* `unrolled_steps(with_gradient)`: up to this T the time loop of one layer is better unrolled than a loop of the compiler.
* `unrolled_network_steps()`: up to this T the same holds of the time loop around a whole network.
"""

import importlib

import keras

_name = keras.backend.backend()
if _name not in ("jax", "tensorflow", "torch"):
    raise ImportError(
        f"keras_ratesnn runs on the Keras backends tensorflow, jax and torch. Received: KERAS_BACKEND={_name!r}. "
        "Set the environment variable KERAS_BACKEND to one of the three before Keras is imported."
    )
_functions = importlib.import_module(f"{__name__}.{_name}")

check_equal = _functions.check_equal
derivative_only = _functions.derivative_only
elementwise = _functions.elementwise
finite_rows = _functions.finite_rows
fusing = _functions.fusing
gradient_of = _functions.gradient_of
graft = _functions.graft
layout_kept = _functions.layout_kept
multiply_add = _functions.multiply_add
normalize = _functions.normalize
normalize_as = _functions.normalize_as
no_gradient = _functions.no_gradient
noise_state = _functions.noise_state
set_noise_state = _functions.set_noise_state
grad_enabled = _functions.grad_enabled
jvp = _functions.jvp
optimization_barrier = _functions.optimization_barrier
reading_once = _functions.reading_once
replaceable = _functions.replaceable
ranks_of_batch = _functions.ranks_of_batch
unrolled_network_steps = _functions.unrolled_network_steps
unrolled_steps = _functions.unrolled_steps
untraced = _functions.untraced
with_backward = _functions.with_backward
without_gradient = _functions.without_gradient
