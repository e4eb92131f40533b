"""What the library is built on and does not promise: checks, the registry, the graph of a network, the backends."""
