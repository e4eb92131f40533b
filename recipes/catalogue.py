"""The recipes there are, by name."""

from recipes import digits, fashion_mnist

RECIPES = {recipe.name: recipe for recipe in (digits.RECIPE, fashion_mnist.RECIPE)}


def find(name):
    """The recipe called `name`.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}. The recipes are: {', '.join(RECIPES)}.")
    return RECIPES[name]
