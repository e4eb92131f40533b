"""Parts of `SpikingModel` alone."""
