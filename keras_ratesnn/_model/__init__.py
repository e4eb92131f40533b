"""The parts of `SpikingModel`: its inputs, settings, checks, training and files."""
