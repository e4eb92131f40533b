"""`python -m recipes.benchmark` is the command of `recipes.benchmark.step`."""

from recipes.benchmark.step import main

if __name__ == "__main__":
    raise SystemExit(main())
