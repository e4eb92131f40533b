"""How often answers are right: after each step, until sure, with spikes shuffled, and on inputs that are attacked."""
