"""How often answers are right: after each step, until sure, and with spikes
shuffled."""
