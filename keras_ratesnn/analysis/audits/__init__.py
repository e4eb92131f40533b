"""What a network is, does and costs, side by side."""
