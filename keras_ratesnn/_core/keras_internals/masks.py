"""The masks that Keras attaches to tensors."""

from keras import ops

from keras_ratesnn._core.keras_internals.imported import get_keras_mask, set_keras_mask


def mask_of(tensor):
    """The mask that Keras attached to a tensor, or `None`."""
    return get_keras_mask(tensor)


def row_mask(tensor):
    """The Keras mask of a tensor as booleans, if it is one of its first axes; otherwise
    `None`."""
    mask, axes = mask_of(tensor), tensor.shape
    if mask is None or len(mask.shape) > len(axes):
        return None
    fits = all(
        None in sizes or sizes[0] == sizes[1]
        for sizes in zip(mask.shape[1:], axes[1:], strict=False)
    )
    return ops.cast(mask, "bool") if fits else None


def put_mask(tensor, mask):
    """Attaches a Keras mask to a tensor and returns it; `None` leaves the tensor as it
    is."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def masked_as(tensor, other):
    """Attaches the Keras mask of another tensor, if it has one, to a tensor and returns
    it."""
    return put_mask(tensor, mask_of(other))


def take_mask_off(tensor):
    """Takes the mask off a tensor to which Keras attached one, and returns the
    tensor."""
    set_keras_mask(tensor, None)
    return tensor


def with_mask(function, *tensors):
    """`function(*tensors)`, with `function` of their masks as its Keras mask if all of
    them have one."""
    masks = [mask_of(tensor) for tensor in tensors]
    return put_mask(
        function(*tensors),
        None if any(mask is None for mask in masks) else function(*masks),
    )
