"""The recipes by name. Each is in `RECIPE` of a small file, or in `RECIPES` of one for
several that have much in common."""

import importlib
import pkgutil

import keras


def _recipes():
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        yield from getattr(module, "RECIPES", None) or [module.RECIPE]


RECIPES = {
    recipe.name: recipe for recipe in sorted(_recipes(), key=lambda recipe: recipe.name)
}


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(
            f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}."
        )
    return RECIPES[name]


def chosen(arguments, refused=(), further=(), recipe=None):
    """The recipe that a command line names, with the settings of its `--set`.

    Args:
        arguments: The arguments of `command_line.add_recipe`.
        refused: Dictionary from the settings that would have no effect in this command
            to what to do instead, a sentence. Defaults to none.
        further: Strings `key=value`, what the command sets itself. Defaults to none.
        recipe: A `Recipe`, that of a run. Defaults to `None`, the recipe of the name.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If there is no such recipe or setting, a setting has no effect, or
            Keras' image data format is another one.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Recipes take images (height, width, channels). Received: "
            "image_data_format='channels_first', a setting of Keras. Change it to "
            "channels_last in ~/.keras/keras.json."
        )
    for assignment in arguments.set:
        key = assignment.partition("=")[0]
        if key in refused:
            raise ValueError(
                f"`{key}` cannot be set here. Received: --set {assignment}. "
                f"{refused[key]}"
            )
    return (recipe or find(arguments.recipe)).with_settings([*arguments.set, *further])
