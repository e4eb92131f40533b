"""Comparison of methods: `python -m recipes.compare` trains them, `python -m
recipes.compare.results` writes tables."""
