"""Everything that is read of Keras' private API, and nothing else. `tests/test_keras_internals.py` says which part broke."""

import contextlib

import keras
from keras import ops
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
from keras.src.losses.losses import LossFunctionWrapper

from keras_ratesnn._core import tree


def _functional_class():
    inputs = keras.Input((1,))
    return type(keras.Model(inputs, inputs))


_GRAPH_CALLS = (_functional_class().call, keras.Sequential.call)


def is_graph(operation):
    """Whether an operation is a model whose call is nothing but a run through its graph."""
    return isinstance(operation, keras.Model) and getattr(type(operation), "call", None) in _GRAPH_CALLS


def functional_of(network):
    """The Functional model inside a Sequential (`None` if it is not built); a Functional model itself."""
    return network._functional if isinstance(network, keras.Sequential) else network


def run_through_graph(network, signals, operation_function):
    """Runs a Functional model's graph on arbitrary objects, `operation_function(operation)(*args, **kwargs)` at each node."""
    return unpack_single(network._run_through_graph(signals, operation_fn=operation_function))


def inputs_structure(network):
    """The symbolic inputs of a Functional model, in the structure in which they were given."""
    return network._inputs_struct


def outputs_structure(network):
    """The symbolic outputs of a Functional model, in the structure that a call of it returns."""
    return unpack_single(network._outputs_struct)


def takes_training(operation):
    """Whether a call of the operation takes Keras' `training` argument: layers do, bare operations do not."""
    return "training" in getattr(operation, "_call_context_args", ())


def is_prepared(layer, args):
    """Whether a layer can be given these arguments as they are: nothing to build, cast, mask or distribute.

    Args:
        layer: A Keras layer.
        args: List or tuple, the positional arguments of a call.
    """
    scope = get_autocast_scope()
    return (
        layer.built
        and layer.autocast
        and layer.compute_dtype == (layer.variable_dtype if scope is None else scope.dtype)
        and keras.distribution.distribution() is None
        and all(
            ops.is_tensor(leaf)
            and keras.backend.standardize_dtype(leaf.dtype) == layer.compute_dtype
            and getattr(leaf, "_keras_mask", None) is None
            for leaf in tree.flatten(args)
        )
    )


def call_prepared(layer, args):
    """What `layer(*args)` comes to where `is_prepared`, without the search for what there may be to prepare.

    The activity of the layer is not regularised.
    """
    with keras.name_scope(layer.name, caller=layer):
        return super(keras.Layer, layer).__call__(*args)


def call_aside(operation, args, kwargs):
    """`(outputs, losses)` of a call of an operation: the losses that it adds in its call, which do not become the layer's.

    Among these is no regularisation of its activity. Nothing of the layer is changed meanwhile: other threads may use it.
    """
    if not isinstance(operation, keras.Layer):
        return operation(*args, **kwargs), []
    with _LossesAside() as scope:
        outputs = operation(*args, **kwargs)
    losses = scope.losses
    if losses:
        # Keras knows the losses of a layer by the ids of objects, which may become those of other losses later.
        for layer in with_sublayers(operation):
            layer._loss_ids.difference_update(map(id, losses))
        if operation.activity_regularizer is not None:
            # Comes last, with a loss for each output.
            losses = losses[: len(losses) - sum(map(ops.is_tensor, keras.tree.flatten(outputs)))]
    return outputs, losses


class _Through(keras.StatelessScope):
    """A scope, of one thread, out of which variables are read and assigned."""

    def __init__(self, values=(), collect_losses=False):
        super().__init__(values, collect_losses)
        self._outside = get_stateless_scope()

    def get_current_value(self, variable):
        return None if self._outside is None else self._outside.get_current_value(variable)

    def add_update(self, update):
        if self._outside is None:
            variable, value = update
            variable._direct_assign(value)
        else:
            self._outside.add_update(update)


class _LossesAside(_Through):
    """A scope that collects losses."""

    def __init__(self):
        super().__init__(collect_losses=True)


class ReadOnce(_Through):
    """A scope in which variables have these values until they are assigned. No losses can be added in it.

    Args:
        values: List of pairs of a Keras variable and a tensor.
    """

    def get_current_value(self, variable):
        value = self.state_mapping.get(id(variable))
        return super().get_current_value(variable) if value is None else value

    def add_update(self, update):
        self.state_mapping.pop(id(update[0]), None)
        super().add_update(update)


def is_rematerialized(model):
    """Whether a layer of a model was made in a `keras.RematScope`."""
    return any(layer._remat_mode is not None for layer in with_sublayers(model))


def seed_states(layer):
    """The variables that hold the state of the random generators of a layer and of the layers inside it: a tuple."""
    return tuple(generator.state for inside in with_sublayers(layer) for generator in inside._seed_generators)


def with_sublayers(layer):
    """A layer and all layers inside it."""
    return layer._flatten_layers()


def set_state(model, name, value):
    """Sets an attribute of a model that is built already to an object with variables, as if it had been there before."""
    if hasattr(model, "jax_state_sync"):
        # In the middle of `fit` on JAX, the state is elsewhere; after this it is collected again.
        model.jax_state_sync()
    tracker, locked = model._tracker, model._tracker.locked
    tracker.unlock()
    setattr(model, name, value)
    if locked:
        tracker.lock()


def state_shardings(model):
    """How a model's state is spread over devices, in the form that Keras wants when it makes a function on JAX, or `None`."""
    spread = hasattr(model, "_get_state_sharding_spec") and keras.distribution.distribution() is not None
    return model._get_state_sharding_spec() if spread else None


class StandIn:
    """What Keras' `make_train_function` and its like are given for a model: reads the model, and keeps what is made.

    The model itself may be in use meanwhile, by `fit` or by other threads.

    Args:
        model: A Keras model.
        shardings: Its `state_shardings`; while it trains on JAX, a model has no values to look at.
    """

    def __init__(self, model, shardings):
        self._model = model
        self._get_state_sharding_spec = lambda: shardings

    def __getattr__(self, name):
        return getattr(self._model, name)

    # JAX takes `model.train_step` for the same function each time, and would not trace it anew. These are this object's own.
    def train_step(self, *args):
        return self._model.train_step(*args)

    def test_step(self, *args):
        return self._model.test_step(*args)

    def predict_step(self, *args):
        return self._model.predict_step(*args)


def make_function(stand_in, purpose):
    """The function that Keras makes for `fit`, `evaluate` or `predict`: `purpose` is `"train"`, `"test"` or `"predict"`."""
    getattr(keras.Model, f"make_{purpose}_function")(stand_in, force=True)
    return getattr(stand_in, f"{purpose}_function")


@contextlib.contextmanager
def plain_build_errors():
    """A context in which what goes wrong while Keras runs a model to build its metrics is raised as it is."""
    try:
        yield
    except RuntimeError as error:
        if error.__context__ is not None and str(error).startswith("Unable to automatically build the model."):
            raise error.__context__ from None
        raise


def portable(config):
    """A saved compile config for any backend: on PyTorch, Keras notes the optimizers' PyTorch classes in it."""
    if isinstance(config, dict):
        config = {key: portable(value) for key, value in config.items()}
        if str(config.get("module")).startswith("keras.src.backend.torch.optimizers"):
            config["module"] = "keras.optimizers"
    elif isinstance(config, (list, tuple)):
        config = type(config)(portable(value) for value in config)
    return config


def without_autocast():
    """A context in which variables are read in their own dtype, whatever the policy of the layer being called."""
    return AutocastScope(None)


def loss_of_samples(loss):
    """The function `(y_true, y_pred)` of a loss before it is reduced, which brings labels and outputs to the same rank.

    Args:
        loss: A `keras.losses.Loss`, or a function, which `compile` makes one of.
    """
    return (loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss)).call


def mask_of(tensor):
    """The mask that Keras has put on a tensor, or `None`."""
    return get_keras_mask(tensor)


def put_mask(tensor, mask):
    """The tensor, with a mask put on it for Keras to see; `None` leaves it as it is."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def unpack_single(outputs):
    """As Functional.call does: a list of one output is that output."""
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs
