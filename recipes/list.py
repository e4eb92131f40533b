"""Lists the recipes: `python -m recipes.list`."""

from recipes import catalogue


def main():
    """Prints a line for each recipe."""
    width = max(map(len, catalogue.RECIPES))
    for recipe in catalogue.RECIPES.values():
        print(
            f"{recipe.name.ljust(width)}  {recipe.description}; T = "
            f"{recipe.timesteps}, {recipe.epochs} epochs"
        )


if __name__ == "__main__":
    main()
