"""Training by configuration: `python -m recipes.train NAME`. One small file a recipe."""
