"""The public signatures have types; `.ci/run` has mypy check them, and
`typed_program.py` by them."""

import inspect

import pytest

import keras_ratesnn

pytestmark = pytest.mark.runs_once


def public_names(module=keras_ratesnn, path=""):
    """Every public function and class of the package: its path, and itself."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    ]
    for name in names:
        found = getattr(module, name)
        if inspect.ismodule(found):
            yield from public_names(found, f"{path}{name}.")
        else:
            yield f"{path}{name}", found


def functions_of(path, found):
    """A function; the public methods and properties of a class that are the package's
    own."""
    if not inspect.isclass(found):
        return [(path, found)] if inspect.isfunction(found) else []
    functions = []
    for base in found.__mro__:
        if not base.__module__.startswith("keras_ratesnn"):
            continue
        for name, value in vars(base).items():
            value = getattr(value, "fget", getattr(value, "__func__", value))
            # What comes from Keras, wrapped, has no types.
            own = inspect.isfunction(value) and value.__module__.startswith(
                "keras_ratesnn"
            )
            if (
                own
                and (not name.startswith("_") or name in ("__init__", "__call__"))
                and value.__name__ != "<lambda>"
            ):
                functions.append((f"{path}.{name}", value))
    return functions


PUBLIC = {
    path: function
    for name, found in public_names()
    for path, function in functions_of(name, found)
}


def untyped(function):
    """What has no type in a signature."""
    signature = inspect.signature(function)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    missing = [
        name
        for name in parameters
        if signature.parameters[name].annotation is inspect.Parameter.empty
    ]
    return missing + (
        ["return"] if signature.return_annotation is inspect.Signature.empty else []
    )


def test_public_signatures_have_types():
    assert {
        "spikify",
        "layers.LIF.__init__",
        "models.ResNet18",
        "gradients.extend.plain",
    } <= PUBLIC.keys()
    # Made by functions that return one for each cell, as `from_cell` does: mypy knows
    # them as properties.
    found = {
        path: untyped(function)
        for path, function in PUBLIC.items()
        if "<locals>" not in function.__qualname__
    }
    assert {path: missing for path, missing in found.items() if missing} == {}
