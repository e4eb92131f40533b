"""What the methods come to: `python -m recipes.compare` trains them, `python -m recipes.compare.results` writes the tables."""
