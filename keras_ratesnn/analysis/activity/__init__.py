"""The activity of neurons: their spikes and membranes."""
