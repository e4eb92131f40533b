"""What neurons do: their spikes and membranes."""
