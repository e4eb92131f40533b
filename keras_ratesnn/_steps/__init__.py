"""A network step by step, in inference: one step as a file, and samples that stop as
soon as their class is sure."""
