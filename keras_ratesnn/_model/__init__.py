"""What serves `SpikingModel` alone."""
