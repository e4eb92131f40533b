"""Weights in half the bytes: kernels in float16. Vectors, such as the statistics of normalisation, stay in float32."""

import io
import zipfile

import h5py
import keras
import numpy as np

WEIGHTS = "model.weights.h5"
"""Where Keras writes the weights in a `.keras` file."""


def round_kernels(model):
    """Rounds the kernels of a model to numbers of float16, in place.

    Raises:
        ValueError: If a number is too large.
    """
    for weight in model.weights:
        if _is_kernel(weight):
            values = keras.ops.convert_to_numpy(weight.value)
            with np.errstate(over="ignore"):
                rounded = values.astype("float16")
            if not np.isfinite(rounded).all():
                raise ValueError(
                    f"--half needs weights of at most {np.finfo('float16').max:.0f}. Received: {np.abs(values).max():g} in "
                    f"{weight.path!r}. Leave --half out."
                )
            weight.assign(rounded)


def halve(path):
    """Rewrites a `.keras` file whose kernels are rounded: these take 2 bytes a number. Keras loads it as before."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO()
    with h5py.File(io.BytesIO(members[WEIGHTS])) as whole, h5py.File(weights, "w") as half:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                copied = half.create_dataset(name, data=item[()], dtype="float16" if _is_kernel(item) else item.dtype)
            else:
                copied = half.require_group(name)
            copied.attrs.update(item.attrs)

        half.attrs.update(whole.attrs)
        whole.visititems(copy)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, weights.getvalue() if name == WEIGHTS else content)


def _is_kernel(weight):
    return len(weight.shape) > 1 and str(weight.dtype) == "float32"
