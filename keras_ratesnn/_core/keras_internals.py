"""All uses of Keras' private API, and nothing else. If one breaks, `tests/test_keras_internals.py` shows which."""

import contextlib
import contextvars
import functools
import inspect
import itertools
import operator
import threading
import warnings
from typing import Any

import keras
from keras import ops

NEWEST_TESTED = (3, 15)
"""The newest Keras with which the suite has passed: major and minor version."""


def warn_if_untested(version):
    """Warns if a version of Keras, a string, is newer than any that was tested: what is private may differ there."""
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) > NEWEST_TESTED:
        warnings.warn(
            f"keras_ratesnn reads parts of Keras that may change with every version, and Keras {version} is newer than the "
            f"newest that was tested, {_dotted(NEWEST_TESTED)}. {_REMEDY}",
            stacklevel=2,
        )


def _dotted(version):
    return ".".join(map(str, version))


_REMEDY = (
    f'Install an older one, pip install "keras<{_dotted((NEWEST_TESTED[0], NEWEST_TESTED[1] + 1))}", or a newer keras-ratesnn. '
    "In a checkout, python -m pytest tests/test_keras_internals.py says which part has changed."
)

warn_if_untested(keras.__version__)
try:
    from keras.src.backend import compute_output_spec
    from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
    from keras.src.backend.common.stateless_scope import get_stateless_scope
    from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
    from keras.src.losses.losses import LossFunctionWrapper
    from keras.src.models import functional
    from keras.src.utils.tracking import TrackedDict, TrackedList, TrackedSet
except ImportError as error:
    raise ImportError(f"Keras {keras.__version__} lacks what keras_ratesnn reads of it: {error}. {_REMEDY}") from error


# Until Keras 3.15 a Functional model passes its own `training` to each layer, whatever the call in the graph was given.
_MODEL_DECIDES_TRAINING = hasattr(functional, "operation_fn")

# With a dtype, since Keras would fix its default otherwise.
ATTRIBUTES_OF_EVERY_LAYER = frozenset(vars(keras.layers.Layer(name="any", dtype="float32")))
"""Names of the attributes that any layer has; in a layer without settings they affect nothing that is computed."""

TRACKED_CONTAINERS = TrackedDict, TrackedList, TrackedSet
"""The types in which a layer keeps the containers that are its attributes."""

_GRAPH_CALLS = (functional.Functional.call, keras.Sequential.call)


def is_graph(operation):
    """Whether an operation is a model whose `call` only runs its graph."""
    return isinstance(operation, keras.Model) and getattr(type(operation), "call", None) in _GRAPH_CALLS


def is_graph_with_other_call(model):
    """Whether a model has a graph, and a `call` that does something else."""
    return not is_graph(model) and bool(getattr(model, "_nodes", ()) or getattr(model, "_functional", None))


def functional_of(network):
    """The Functional model inside a Sequential (`None` if it is not built); a Functional model itself."""
    return network._functional if isinstance(network, keras.Sequential) else network


def run_through_graph(network, signals, operation_function):
    """Runs a Functional model's graph on arbitrary objects, `operation_function(operation)(*args, **kwargs)` at each node."""
    return unpack_single(network._run_through_graph(signals, operation_fn=operation_function))


def calls_in(graph):
    """The calls of a Functional model in order: a list of `(operation, args, kwargs, outputs)`, the outputs as a flat list."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in graph._nodes_by_depth[depth] if not node.is_input]
    return [(node.operation, node.arguments.args, node.arguments.kwargs, node.outputs) for node in nodes]


def forget_training(graph):
    """Makes the calls in a Functional model, but not in its nested ones, as if they had been made without `training`."""
    for _, _, kwargs, _ in calls_in(graph):
        kwargs.pop("training", None)


@contextlib.contextmanager
def calling(layer, training):
    """A context in which layers take over `training` if they are called without it, as in a call of an outer layer."""
    layer._get_call_context().set_value("training", training)
    try:
        yield
    finally:
        layer._maybe_reset_call_context()


def own_state(layer):
    """The variables and random generators of a layer that do not belong to its sublayers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables, *layer._seed_generators]


def forget_symbolic_losses(layer):
    """Whether a layer and its sublayers have added losses when they were called; forgets them."""
    layers = list(with_sublayers(layer))
    has_losses = any(inside._losses for inside in layers)
    for inside in layers:
        inside._losses.clear()
        inside._loss_ids.clear()
    return has_losses


def take_inputs_unchanged(model):
    """Makes Keras pass inputs to a model's `call` as they are, as it does for a Functional model, not in half precision."""
    model._convert_input_args = False
    model._allow_non_tensor_positional_args = True


def inputs_structure(network):
    """The symbolic inputs of a Functional model, in their original structure."""
    return network._inputs_struct


def name_of_input(tensor):
    """The name of the layer of a symbolic input, as `summary` shows it; an input without a name has a number as its own."""
    return tensor._keras_history.operation.name


def outputs_structure(network):
    """The symbolic outputs of a Functional model, in the structure that calling it returns."""
    return unpack_single(network._outputs_struct)


_MADE_WHEN_RUN = {"history", "stop_evaluating", "stop_predicting", "_jax_state", "_epoch_iterator", "_eval_epoch_iterator"}
"""Attributes that `fit`, `evaluate` and `predict` give a model."""


def graph_class(cls):
    """The class of Keras from which a class of models has its graph: Functional or Sequential."""
    return keras.Sequential if issubclass(cls, keras.Sequential) else functional.Functional


def own_classes(cls):
    """The classes of a class of Functional or Sequential models that are not Keras' own, the most derived first: a tuple."""
    base = graph_class(cls)
    return tuple(other for other in cls.__mro__ if not issubclass(base, other))


def attributes_of(model):
    """Dict of the attributes that the classes and users of a Functional or Sequential model have given it."""
    inputs = keras.Input((1,))
    base = graph_class(type(model))
    plain = base([inputs]) if base is keras.Sequential else base(inputs, inputs)
    plain.compile("sgd", "mse")
    of_keras = {*_names_of_attributes(plain), *_MADE_WHEN_RUN}
    return {name: getattr(model, name) for name in _names_of_attributes(model) if name not in of_keras}


def _names_of_attributes(model):
    # PyTorch keeps modules apart from other attributes.
    return [*vars(model), *vars(model).get("_modules", ())]


def without_graph(base):
    """A subclass of Functional or Sequential whose instances are plain models: they have no graph of their own.

    Everything that `base` adds to a `keras.Model` is that of a `keras.Model` again, so that a class which is derived from
    `base` and from a model with another `call` is a subclass of both and does what the latter does.
    """
    own = [cls for cls in base.__mro__ if not issubclass(keras.Model, cls)]
    names = {name for cls in own for name in vars(cls) if not name.startswith("__")}
    plain = {name: inspect.getattr_static(keras.Model, name) for name in names if hasattr(keras.Model, name)}
    # Like Functional models, they may be given layers after they are built.
    plain["_lock_state"] = base._lock_state
    plain["__init__"] = lambda self, **kwargs: keras.Model.__init__(self, **kwargs)
    # What `summary` and `plot_model` read of Functional models.
    plain |= {"_operations": property(lambda self: self.layers), "_nodes_by_depth": {}, "_nodes": ()}
    plain["_run_through_graph"] = _no_graph
    return type(f"Plain{base.__name__}", (base,), plain)


def _no_graph(model, *args, **kwargs):
    raise TypeError(
        f"{model.name!r} is a SpikingModel without a graph of its own, which keras.models.clone_model cannot copy. To copy it: "
        "copy.deepcopy(model), or without its weights type(model).from_config(model.get_config())."
    )


def takes_training(operation):
    """Whether the operation accepts Keras' `training` argument: layers do, bare operations do not."""
    return "training" in getattr(operation, "_call_context_args", ())


def training_in_graph(kwargs):
    """The `training` that a call in the graph was given, if it overrides the model's own, as it does since Keras 3.16."""
    return None if _MODEL_DECIDES_TRAINING else kwargs.get("training")


def call_aside(operation, args, kwargs):
    """Calls an operation and returns `(outputs, losses)`, where losses added during the call are not stored in the layer.

    Activity regularisation is not included. The layer itself is not changed, so other threads can use it.
    """
    if not isinstance(operation, keras.Layer):
        return operation(*args, **kwargs), []
    with _Aside() as scope:
        outputs = operation(*args, **kwargs)
    losses = scope.losses
    if losses:
        # Keras identifies the losses of a layer by object ids, which later losses may reuse.
        for layer in with_sublayers(operation):
            layer._loss_ids.difference_update(map(id, losses))
        if operation.activity_regularizer is not None:
            # Its losses come last, one for each output.
            losses = losses[: len(losses) - sum(map(ops.is_tensor, keras.tree.flatten(outputs)))]
    return outputs, losses


class Values(keras.StatelessScope):
    """A scope in which variables have the given values, in their own dtype. Assignments end with it.

    Keras would cast the values to the dtype in which variables are read at present: in half precision, to that of the layers.

    Args:
        values: Iterable of pairs of a Keras variable and a tensor. Defaults to `()`.
        **options: As in `keras.StatelessScope`.
    """

    def __init__(self, values=(), **options):
        super().__init__(**options)
        for variable, value in values:
            self.state_mapping[id(variable)] = ops.convert_to_tensor(value, dtype=variable._dtype)


class _Through(Values):
    """A thread-local scope that passes reads and assignments of variables to the enclosing scope."""

    def __init__(self, values=(), collect_losses=False):
        super().__init__(values, collect_losses=collect_losses)
        self._outside = get_stateless_scope()

    def get_current_value(self, variable):
        return None if self._outside is None else self._outside.get_current_value(variable)

    def add_update(self, update):
        if self._outside is None:
            variable, value = update
            variable._direct_assign(value)
        else:
            self._outside.add_update(update)


class _Aside(_Through):
    """A scope that collects losses. What is read after an assignment is a copy.

    PyTorch assigns in place: without it the backward pass of a step would find the weights that a later step has assigned.
    """

    def __init__(self):
        super().__init__(collect_losses=True)
        self._assigned = set()

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        return ops.copy(variable._value) if value is None and id(variable) in self._assigned else value

    def add_update(self, update):
        # The assignment itself needs the variable.
        self._assigned.discard(id(update[0]))
        super().add_update(update)
        self._assigned.add(id(update[0]))


class Replaced(Values):
    """`Values`, where an assignment of a weight may be given another value.

    Args:
        values: List of pairs of a Keras variable and a tensor.
        assigned: Function `(value, before) -> value`: a weight after an assignment of `value`, which was `before`.
        collect_losses: Boolean, whether the losses that layers add count in it. Defaults to `False`.
    """

    def __init__(self, values, assigned, collect_losses=False):
        super().__init__(values, collect_losses=collect_losses)
        self._as_assigned = assigned

    def add_update(self, update):
        variable, value = update
        before = self.get_current_value(variable)
        trains = variable.trainable and before is not None
        super().add_update((variable, self._as_assigned(value, before) if trains else value))


class Tried(Replaced):
    """`Replaced`, for a model that is run without being changed: the losses that its layers add end with the scope, too.

    Args:
        model: A Keras model.
        values: As in `Replaced`; of all trainable variables, since regularizers read them.
        assigned: As in `Replaced`.
    """

    def __init__(self, model, values, assigned):
        super().__init__(values, assigned, collect_losses=True)
        self._model = model

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        # Keras identifies the losses of a layer by object ids, which later losses may reuse.
        for layer in with_sublayers(self._model):
            layer._loss_ids.difference_update(map(id, self.losses))


def compiled_loss(model):
    """The arguments `loss` and `loss_weights` that a model was compiled with, a dict; empty if there is no loss."""
    if not model.compiled or model.loss is None:
        return {}
    return {name: model._compile_config.config[name] for name in ("loss", "loss_weights")}


def build_loss(model, inputs, labels, outputs):
    """Builds the compiled loss of a model, which makes variables, for inputs, labels and (symbolic) outputs."""
    if model._compile_loss is not None and not model._compile_loss.built:
        inputs, labels = keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)), (inputs, labels)
        )
        compute_output_spec(model.compute_loss, inputs, labels, outputs)


class ReadOnce(_Through):
    """A scope in which variables have the given values until they are assigned. Losses cannot be added in it.

    Args:
        values: List of pairs of a Keras variable and a tensor.
    """

    def get_current_value(self, variable):
        value = self.state_mapping.get(id(variable))
        return super().get_current_value(variable) if value is None else value

    def add_update(self, update):
        self.state_mapping.pop(id(update[0]), None)
        super().add_update(update)


class ShiftedSeeds(_Through):
    """A scope in which the random generators of a network have shifted seeds.

    Args:
        network: A Keras model.
        offset: Integer scalar tensor, added to each seed.
        in_threads: Boolean, whether other replicas are threads of this process, whose losses are forgotten.
    """

    def __init__(self, network, offset, in_threads):
        super().__init__(collect_losses=True)
        self._network = network
        self._in_threads = in_threads
        self._states = set(map(id, seed_states(network)))
        # A state is a seed and a counter.
        self._shift = ops.stack([offset, ops.zeros_like(offset)])

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if id(variable) not in self._states:
            return value
        value = ops.convert_to_tensor(variable._value) if value is None else value
        return value + ops.cast(self._shift, value.dtype)

    def add_update(self, update):
        variable, value = update
        if id(variable) not in self._states:
            super().add_update(update)
            return
        # The assignment itself needs the variable.
        self._states.discard(id(variable))
        super().add_update((variable, value - ops.cast(self._shift, value.dtype)))
        self._states.add(id(variable))

    def __exit__(self, *error):
        super().__exit__(*error)
        layers = list(with_sublayers(self._network))
        if self._in_threads:
            for layer in layers:
                layer._losses.clear()
        for layer, loss in _with_owners(self.losses, layers):
            layer.add_loss(loss)


@functools.cache
def let_trees_free_tensors():
    """Lets `keras.tree` on PyTorch keep no tensors that it has looked at. It does the same, in less time.

    Keras hands PyTorch's `tree_flatten` a function that refers to the structure, and that keeps it in an inner function that
    refers to itself: the tensors stay in memory until Python's garbage collector comes by, hundreds of MiB in eager mode.
    """
    if keras.backend.backend() != "torch":
        return
    from keras.src.tree import torchtree_impl

    original = torchtree_impl._dict_to_ordered_dict

    def with_sorted_dicts(structure):
        if not torchtree_impl.is_nested(structure):
            return structure
        if type(structure) in (list, tuple):
            return type(structure)([with_sorted_dicts(part) for part in structure])
        return original(structure)

    torchtree_impl._dict_to_ordered_dict = with_sorted_dicts


def is_rematerialized(model):
    """Whether a layer of a model was made in a `keras.RematScope`."""
    return any(layer._remat_mode is not None for layer in with_sublayers(model))


def seed_states(layer):
    """The state variables of the random generators of a layer and its sublayers: a tuple."""
    return tuple(generator.state for inside in with_sublayers(layer) for generator in inside._seed_generators)


def with_sublayers(layer):
    """A layer and all its sublayers."""
    return layer._flatten_layers()


def hooks_of(layer):
    """The collections of functions that run before or after the calls of a layer, on PyTorch."""
    found = (getattr(layer, name, None) for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"))
    return [hooks for hooks in found if hooks is not None]


def torch_parameters(layer):
    """The collection of the weights of a layer that Keras makes for PyTorch, or `None`."""
    return getattr(layer, "_torch_params", None)


def set_state(model, name, value):
    """Sets an attribute of a model that is already built to an object with variables, as if it had been set before."""
    if hasattr(model, "jax_state_sync"):
        # During `fit` on JAX the state is kept elsewhere; this synchronises it, so that it is collected again.
        model.jax_state_sync()
    tracker, locked = model._tracker, model._tracker.locked
    tracker.unlock()
    setattr(model, name, value)
    if locked:
        tracker.lock()


def state_shardings(model):
    """The sharding of a model's state in the form that Keras needs to make a function on JAX, or `None`."""
    spread = hasattr(model, "_get_state_sharding_spec") and keras.distribution.distribution() is not None
    return model._get_state_sharding_spec() if spread else None


_STATE = ("trainable_variables", "non_trainable_variables")
_STATE_OF = {
    "train": (*_STATE, "optimizer_variables", "metrics_variables"),
    "test": (*_STATE, "metrics_variables"),
    "predict": _STATE,
}


def reattach_state(model, purpose, state):
    """Gives a model its variables again, which Keras takes from it while a function runs on JAX, after an error.

    Args:
        model: A Keras model.
        purpose: `"train"`, `"test"` or `"predict"`.
        state: List with the state that was passed to the function; empty on other backends.
    """
    # What the function has begun to compute may have been deleted, to reuse the memory.
    if not state or any(array.is_deleted() for array in keras.tree.flatten(state)):
        return
    model._jax_state = dict(zip(_STATE_OF[purpose], state[0], strict=True))
    model._jax_state_synced = False
    model.jax_state_sync()


_copying = contextvars.ContextVar("keras_ratesnn_copying", default=False)


@contextlib.contextmanager
def whole_batches():
    """On JAX, a context in which a batch that devices cannot share equally is given whole to each of them.

    Keras would raise an error in the middle of training.
    """
    if keras.backend.backend() == "jax" and keras.distribution.distribution() is not None:
        _let_batches_be_copied()
    token = _copying.set(True)
    try:
        yield
    finally:
        _copying.reset(token)


@functools.cache
def _let_batches_be_copied():
    import jax
    from keras.src.backend.jax import trainer

    distribute = trainer._distribute_data

    def distribute_or_copy(data, layouts=None):
        distribution = keras.distribution.distribution()
        if not _copying.get() or distribution is None:
            return distribute(data, layouts)
        mesh = distribution.device_mesh
        devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
        rows, processes = first_tensor(data).shape[0], jax.process_count()
        if rows * processes % devices == 0:
            return distribute(data, layouts)
        if processes > 1:
            raise ValueError(
                f"`batch_size` must be a multiple of the number of devices, {devices}, where several processes train together. "
                f"Received: a batch of {rows * processes}. Drop the last batch if it is smaller."
            )

        def whole(leaf):
            return None if leaf is None else keras.distribution.TensorLayout([None] * len(leaf.shape), mesh)

        return distribute(data, keras.tree.map_structure(whole, data))

    trainer._distribute_data = distribute_or_copy


class TrainsInStrategies:
    """A mixin for models that are trained in a `tf.distribute` strategy, whose replicas have unequal parts of the first batch.

    Keras would add these parts to build a model.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        strategy = getattr(self, "_distribute_strategy", None)  # only TensorFlow's models have one, since Keras 3.16
        if iterator is not None and strategy is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(lambda part: strategy.experimental_local_results(part)[0], next(batches))
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)  # type: ignore[misc]


class CollectsLayersOnce:
    """A mixin for models whose layers and variables are collected only where they have changed.

    Keras walks through all layers a dozen times in each training step.
    """

    def _flatten_layers(self, include_self=True, recursive=True):
        if not recursive:
            return super()._flatten_layers(include_self, recursive)  # type: ignore[misc]
        layers = self._collection().layers
        return [self, *layers] if include_self else [*layers]

    @property
    def variables(self) -> list[Any]:
        return [*self._collection().variables]

    @property
    def weights(self) -> list[Any]:
        return [*self._collection().weights]

    def _clear_losses(self):
        if get_stateless_scope() is not None:
            super()._clear_losses()  # type: ignore[misc]
            return
        for layer in self._flatten_layers():
            if layer._losses or layer._loss_ids:
                layer._losses.clear()
                layer._loss_ids.clear()

    def _track_variables(self):
        collection = self._collection()
        values = values_of(collection.variables)
        known, tracked = collection.tracked
        if known is None or known is not torch_parameters(self) or not all(map(operator.is_, tracked, values)):
            super()._track_variables()  # type: ignore[misc]
            collection.tracked = torch_parameters(self), values

    def _collection(self):
        # Keras would take an attribute that is set in the usual way for a part of the model.
        collection = vars(self).get("_layers_and_variables")
        if collection is None or not collection.is_current():
            layers = super()._flatten_layers(include_self=False)  # type: ignore[misc]
            collection = _Collection(self, layers, super().variables, super().weights)  # type: ignore[misc]
            vars(self)["_layers_and_variables"] = collection
        return collection


class _Collection:
    """The layers and variables of a model at the time of construction.

    Attributes:
        layers: List of all sublayers.
        variables: List.
        weights: List.
        tracked: The collection that Keras made of the variables for PyTorch, or `None`, and a list of their values.
    """

    def __init__(self, model, layers, variables, weights):
        self.layers, self.variables, self.weights = layers, variables, weights
        self.tracked: tuple[Any, list[Any]] = (None, [])
        self._owners = [model, *layers]
        of_variables = ("_trainable_variables", "_non_trainable_variables", "_seed_generators")
        self._lists_of_layers = [owner._layers for owner in self._owners]
        self._lists = self._lists_of_layers + [getattr(owner, name) for owner in self._owners for name in of_variables]
        self._lengths = list(map(len, self._lists))
        # Most are empty: no need to look into these, once their lengths have been compared.
        self._filled = list(filter(None, self._lists))
        self._contents = list(itertools.chain.from_iterable(self._filled))
        # A custom layer may find its variables in other places.
        self._is_complete = all(map(_finds_variables_as_keras, map(type, layers)))

    def is_current(self):
        """Whether a new collection would contain the same."""
        return (
            self._is_complete
            and list(map(len, self._lists)) == self._lengths
            and all(map(operator.is_, self._contents, itertools.chain.from_iterable(self._filled)))
            # A Sequential model gets another list when it is rebuilt.
            and all(map(operator.is_, self._lists_of_layers, map(operator.attrgetter("_layers"), self._owners)))
        )


@functools.cache
def _finds_variables_as_keras(layer_type):
    names = ("_flatten_layers", "variables", "weights", "_clear_losses")
    return issubclass(layer_type, CollectsLayersOnce) or all(
        getattr(layer_type, name) is getattr(keras.Layer, name) for name in names
    )


class ExtractsFeatures:
    """A mixin for `keras.distillation.Distiller`, which reads features of a model by a second model.

    A subclass implements `feature_model(model, layer_names)`: a model with the outputs of `model` as `"final_output"` and those
    of its layers by name.
    """

    def _create_feature_extractor(self, model, layer_names):
        return self.feature_model(model, layer_names) if layer_names else None  # type: ignore[attr-defined]

    def _feature_models(self):
        """Pairs of the student and of the teacher, and the model that reads their features or `None`."""
        extractors = self._student_feature_extractor, self._teacher_feature_extractor  # type: ignore[attr-defined]
        return zip((self.student, self.teacher), extractors, strict=True)  # type: ignore[attr-defined]


class StandIn:
    """A stand-in for a model in Keras' `make_train_function` etc.: it reads from the model and stores the function.

    Meanwhile the model itself may be in use by `fit` or by other threads.

    Args:
        model: A Keras model.
        shardings: Its `state_shardings`, which cannot be read while the model trains on JAX.
    """

    def __init__(self, model, shardings):
        self._model = model
        self._get_state_sharding_spec = lambda: shardings

    def __getattr__(self, name):
        return getattr(self._model, name)

    # JAX would treat `model.train_step` as the same function each time and not retrace it. These belong to this object.
    def train_step(self, *args):
        return self._for_several_workers(self._model.train_step(*args))

    def test_step(self, *args):
        return self._for_several_workers(self._model.test_step(*args))

    def predict_step(self, *args):
        return self._model.predict_step(*args)

    def _for_several_workers(self, logs):
        """Logs with an axis, over which Keras takes a mean where several workers of `tf.distribute` train together."""
        strategy = getattr(self._model, "_distribute_strategy", None)
        if strategy is None or strategy.cluster_resolver is None:
            return logs
        return keras.tree.map_structure(lambda value: ops.expand_dims(value, 0), logs)


def make_function(stand_in, purpose):
    """Lets Keras make the function for `fit`, `evaluate` or `predict`: `purpose` is `"train"`, `"test"` or `"predict"`."""
    getattr(keras.Model, f"make_{purpose}_function")(stand_in, force=True)
    return getattr(stand_in, f"{purpose}_function")


@contextlib.contextmanager
def plain_build_errors():
    """A context that raises the original error when Keras fails to run a model to build its metrics."""
    try:
        yield
    except RuntimeError as error:
        if error.__context__ is not None and str(error).startswith("Unable to automatically build the model."):
            raise error.__context__ from None
        raise


@contextlib.contextmanager
def torch_generators_from(generator_of, run):
    """A context in which `keras.random` on PyTorch makes other generators and draws, in this thread.

    Args:
        generator_of: Function from a seed, an integer scalar tensor, to a `torch.Generator`.
        run: Function `(function, args, kwargs)` that calls a function of PyTorch.
    """
    from keras.src.backend.torch import random
    from keras.src.random.seed_generator import draw_seed

    thread, original = threading.get_ident(), random.torch_seed_generator

    def generator(seed):
        return generator_of(sum(draw_seed(seed))) if threading.get_ident() == thread else original(seed)

    class Torch:
        def __getattr__(self, name):
            function = getattr(torch, name)
            drawing = name in ("rand", "randint", "normal", "multinomial", "bernoulli")
            return functools.partial(draw, function) if drawing else function

    def draw(function, *args, **kwargs):
        return run(function, args, kwargs)

    torch = random.torch
    random.torch, random.torch_seed_generator = Torch(), generator
    try:
        yield
    finally:
        random.torch, random.torch_seed_generator = torch, original


class CollectingScope(Values):
    """A scope in which variables have the given values, which collects assignments and the losses of layers.

    Args:
        variables: List of Keras variables.
        values: List of tensors, their values.
    """

    def __init__(self, variables, values):
        super().__init__(zip(variables, values, strict=True), collect_losses=True, initialize_variables=False)
        self._assigned: dict[int, Any] = {}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            raise ValueError(f"a layer uses variable {variable.path!r}, which does not belong to the network")
        return value

    def add_update(self, update):
        variable, value = update
        if variable.trainable:
            raise ValueError(f"a layer assigns its trainable variable {variable.path!r}")
        # An assignment carries no gradient.
        super().add_update((variable, ops.stop_gradient(value)))
        self._assigned[id(variable)] = variable

    def assigned(self):
        """List of pairs `(variable, value)` of the variables that were assigned, in the order of their first assignments."""
        return [(variable, self.get_current_value(variable)) for variable in self._assigned.values()]

    def added(self, layers):
        """List of pairs `(layer, loss)`: the losses that these layers added. Forgets them."""
        return _with_owners(self.losses, layers)


def _with_owners(losses, layers):
    """List of pairs `(layer, loss)`: the losses that a scope has collected. The layers forget them."""
    found = []
    for loss in losses:
        owner = next(layer for layer in layers if id(loss) in layer._loss_ids)
        owner._loss_ids.discard(id(loss))
        found.append((owner, loss))
    return found


def in_stateless_scope():
    """Whether variables have other values than their own, apart from shifted seeds."""
    scope = get_stateless_scope()
    while isinstance(scope, ShiftedSeeds):
        scope = scope._outside
    return scope is not None


def forget_losses(model):
    """Lets layers forget the losses of earlier traces, whose object ids the losses of the present one may have again.

    Keras forgets them when a layer is called, but on JAX it calls a model without that.
    """
    scope = get_stateless_scope()
    if scope is not None and scope.collect_losses:
        present = set(map(id, scope.losses))
        for layer in with_sublayers(model):
            layer._loss_ids.intersection_update(present)


def is_outermost(layer):
    """Whether the call of a layer that runs now is not part of the call of another one."""
    return layer._get_call_context().entry_layer is layer


def first_tensor(structure):
    """The first tensor in a structure with `None`."""
    return next(leaf for leaf in keras.tree.flatten(structure) if leaf is not None)


def autocast_dtype():
    """The dtype to which variables are cast when they are read, or `None`."""
    scope = get_autocast_scope()
    return None if scope is None else scope.dtype


def portable(config):
    """Makes a saved compile config portable between backends: on PyTorch it refers to Keras' PyTorch optimizers."""
    if isinstance(config, dict):
        config = {key: portable(value) for key, value in config.items()}
        if str(config.get("module")).startswith("keras.src.backend.torch.optimizers"):
            config["module"] = "keras.optimizers"
    elif isinstance(config, (list, tuple)):
        config = type(config)(portable(value) for value in config)
    return config


def without_autocast():
    """A context in which variables are read in their own dtype, without autocasting."""
    return AutocastScope(None)


def loss_of_samples(loss):
    """The function `(y_true, y_pred)` of a loss without reduction; it brings labels and outputs to the same rank.

    Args:
        loss: A `keras.losses.Loss`, or a function, which `compile` wraps in one.
    """
    return (loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss)).call


def values_of(variables):
    """The values of variables in their own dtype, a list."""
    if get_stateless_scope() is None:
        # A fraction of the time of the property.
        return [variable._value for variable in variables]
    with without_autocast():
        return [variable.value for variable in variables]


def assign(variables, values, assign_tensors):
    """Assigns values, tensors of the same shapes and dtypes, to variables.

    Args:
        variables: List of Keras variables.
        values: List of tensors.
        assign_tensors: Function `(tensors, values)` that does so for the values of all variables at once.
    """
    if get_stateless_scope() is None:
        assign_tensors(values_of(variables), values)
        return
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def mask_of(tensor):
    """The mask that Keras attached to a tensor, or `None`."""
    return get_keras_mask(tensor)


def put_mask(tensor, mask):
    """Attaches a Keras mask to a tensor and returns it; `None` leaves the tensor as it is."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def with_mask(function, *tensors):
    """`function(*tensors)`, with `function` of their masks as its Keras mask if all of them have one."""
    masks = [mask_of(tensor) for tensor in tensors]
    return put_mask(function(*tensors), None if any(mask is None for mask in masks) else function(*masks))


def unpack_single(outputs):
    """Unpacks a list of one output, like `Functional.call`."""
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs
