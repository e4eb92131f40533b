"""A probe of whether data need time: networks that are trained in ways that see more
and more of it."""
