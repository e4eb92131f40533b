"""Private foundations: argument checks, the registry, Keras internals and the
backends."""
