"""Samples that stop as soon as their class is sure, and how sure that must be."""
