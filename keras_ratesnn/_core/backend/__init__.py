"""Functions that Keras does not provide portably. `jax.py`, `tensorflow.py` and `torch.py` implement the same names;
`graph_compiled.py` contains what the first two share.

* `CallGraph(function, tensors, outputs, settings, compiled, name)`: a function of tensors as a graph of operations; `None`
  where Keras compiles whole functions.
* `assigned_weight(value, before)`: a weight to which a layer has assigned `value` where tensors replace the weights, with the
  derivative that the backend's own weights have after an assignment.
* `check_equal(size, wanted, message)`: raises an error if two numbers differ, which may be known only at run time.
* `differentiable(tensor)`: the tensor, as one that `gradient_of` differentiates with respect to.
* `fusing(allowed)`: a context in which `elementwise` may compile.
* `elementwise(function, cell, key, *arguments)`: `function(*arguments)`, on structures of tensors and numbers, compiled into
  one pass over memory where that pays off. The function must have no side effects and read no weights except those of the
  neuron cell `cell`. It must depend only on the cell, its arguments and the hashable `key`.
* `finite_rows(tensor, rows)`: splits a tensor into `rows` equal parts; for each, whether all its elements are finite.
* `gradient_of(function, inputs, upstream)`: `(gradients, rest)`, where `function(*inputs)` returns a list of tensors with the
  gradients `upstream`, and a structure `rest` of tensors that is not differentiated. Gradients may be `None`.
* `graft(value, onto, slope)`: `value`, with a chosen derivative.
* `jvp(function, primals, tangents)`: the list of tensors that a function returns, and its directional derivative.
* `no_gradient()`: a context in which nothing is recorded for a backward pass.
* `noise_state()`, `set_noise_state(state)`: the state of random generators other than the seeds of layers.
* `repeated_noise(state)`: a context in which numbers are drawn again from such a state; later ones do not depend on it.
* `detached(function, *args)`: the result of `function(*args)`, a structure of tensors and numbers, without gradient.
* `grad_enabled()`: whether operations may be differentiated later.
* `optimization_barrier(tensors)`: the tensors, each computed before any is used.
* `reading_once(network)`: a context for all forward passes of a training step, so that the backward pass sees the weights of a
  network before the update. Losses cannot be added in it.
* `scan(body, carried, steps, dtype)`: a loop with gradient, `carried, output = body(carried, step)`, compiled once for any
  number of steps: `(carried, outputs)`, the state after the last step, a structure of tensors, and all outputs, of `dtype`.
* `loses_replaced_weights(layer)`: whether tensors that replace the weights of a layer would have no gradient.
* `layout_kept()`: a context in which Keras' layers do not copy `channels_last` data to another layout; entered for each call of
  a layer.
* `multiply_add(x, factor, y)`: x · factor + y, in one pass over memory.
* `merged_moments(size, mean, variance)`: mean and variance over all replicas, given those of `size` elements of this replica.
* `normalize(inputs, axis, gamma, beta, epsilon, weights=None)`: normalises a batch with its own statistics over all axes except
  `axis` and over all replicas. Returns outputs in the dtype of the inputs or wider, and mean and variance without gradient.
  Statistics, γ and β (or `None`) have shape `(channels,)` and are float32 or wider. `weights >= 0` of any scale are those of
  the inputs in the statistics, of the shape of their first axes.
* `normalize_as(inputs, axis, gamma, beta, mean, variance, epsilon, weights=None)`: γ (x − μ) / sqrt(σ² + ε) + β
  with given statistics, differentiated as if μ and σ² were those of the batch with these weights.
* `replicas`: a module: how many replicas of a model see parts of the same batch, and what they exchange.
* `with_backward(values, inputs, others, backward)`: `values`, a list of tensors, whose gradients with respect to the
  tensors `inputs` are `backward(inputs, others, upstream)`; that function may use no other tensors.
* `untraced(function)`: the function, excluded from compilers that trace Python code.
* `ranks_of_batch(data)`: `(ranks, data)`: the ranks of the arguments of a compiled Keras function, on backends where such a
  function cannot be compiled for several; the returned `data` replaces the iterator that was passed.
* `unrolled_steps(with_gradient)`: up to this T unrolling the time loop of one layer is better than a compiled loop.
* `unrolled_network_steps()`: the same for the time loop around a whole network.
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

CallGraph = _functions.CallGraph
assigned_weight = _functions.assigned_weight
check_equal = _functions.check_equal
differentiable = _functions.differentiable
elementwise = _functions.elementwise
finite_rows = _functions.finite_rows
fusing = _functions.fusing
gradient_of = _functions.gradient_of
graft = _functions.graft
layout_kept = _functions.layout_kept
merged_moments = _functions.merged_moments
multiply_add = _functions.multiply_add
normalize = _functions.normalize
normalize_as = _functions.normalize_as
no_gradient = _functions.no_gradient
noise_state = _functions.noise_state
set_noise_state = _functions.set_noise_state
repeated_noise = _functions.repeated_noise
grad_enabled = _functions.grad_enabled
jvp = _functions.jvp
optimization_barrier = _functions.optimization_barrier
reading_once = _functions.reading_once
scan = _functions.scan
loses_replaced_weights = _functions.loses_replaced_weights
ranks_of_batch = _functions.ranks_of_batch
replicas = _functions.replicas
unrolled_network_steps = _functions.unrolled_network_steps
unrolled_steps = _functions.unrolled_steps
untraced = _functions.untraced
with_backward = _functions.with_backward
detached = _functions.detached
