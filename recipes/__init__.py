"""Training by configuration: `python -m recipes.train NAME`. Each recipe is one small file."""
