"""The recipes by name. Each is a small file of the same name, which has it in `RECIPE`."""

import importlib
import pkgutil

_modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))

RECIPES = {module.RECIPE.name: module.RECIPE for module in _modules if hasattr(module, "RECIPE")}


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}.")
    return RECIPES[name]
