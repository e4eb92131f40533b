"""Losses and metrics: the compiled ones, and the losses that layers add."""

import keras

from keras_ratesnn._core.keras_internals.imported import (
    LossFunctionWrapper,
    compute_output_spec,
    get_stateless_scope,
)
from keras_ratesnn._core.keras_internals.layers import with_sublayers


def compiled_loss(model):
    """The arguments `loss` and `loss_weights` that a model was compiled with, a dict;
    empty if there is no loss."""
    if not model.compiled or model.loss is None:
        return {}
    return {
        name: model._compile_config.config[name] for name in ("loss", "loss_weights")
    }


def compiled_metrics(model):
    """The metrics that a model was compiled with, as they were given, a flat list;
    Keras builds them with the first batch."""
    config = model._compile_config.config if model.compiled else {}
    return keras.tree.flatten(
        [config.get(name) or [] for name in ("metrics", "weighted_metrics")]
    )


def build_loss(model, inputs, labels, outputs):
    """Builds the compiled loss of a model, which makes variables, for inputs, labels
    and (symbolic) outputs."""
    if model._compile_loss is not None and not model._compile_loss.built:
        compute_output_spec(
            model.compute_loss, symbolic(inputs), symbolic(labels), outputs
        )


def symbolic(data):
    """A structure of symbolic tensors for one of tensors, arrays or their
    specifications, and `None`."""
    return keras.tree.map_structure(
        lambda of: (
            None
            if of is None
            else keras.KerasTensor(of.shape, keras.backend.standardize_dtype(of.dtype))
        ),
        data,
    )


def loss_of_samples(loss):
    """The function `(y_true, y_pred)` of a loss without reduction; it brings labels and
    outputs to the same rank.

    The reduction of a Keras loss cannot be left out of a call: it belongs to the
    object.

    Args:
        loss: A `keras.losses.Loss`, or a function, which `compile` wraps in one.
    """
    return (
        loss if isinstance(loss, keras.losses.Loss) else LossFunctionWrapper(loss)
    ).call


def forget_symbolic_losses(layer):
    """Whether a layer and its sublayers have added losses when they were called;
    forgets them."""
    layers = list(with_sublayers(layer))
    has_losses = any(inside._losses for inside in layers)
    for inside in layers:
        inside._losses.clear()
        inside._loss_ids.clear()
    return has_losses


def forget_losses(model):
    """Lets layers forget the losses of earlier traces, whose object ids the losses of
    the present one may have again.

    Keras forgets them when a layer is called, but its JAX trainer calls a model without
    that (docs/upstream.md, loses losses).
    """
    scope = get_stateless_scope()
    if scope is not None and scope.collect_losses:
        present = set(map(id, scope.losses))
        for layer in with_sublayers(model):
            layer._loss_ids.intersection_update(present)


def with_owners(losses, layers):
    """List of pairs `(layer, loss)`: the losses that a scope has collected. The layers
    forget them."""
    pairs = []
    for loss in losses:
        owner = next(layer for layer in layers if id(loss) in layer._loss_ids)
        owner._loss_ids.discard(id(loss))
        pairs.append((owner, loss))
    return pairs
