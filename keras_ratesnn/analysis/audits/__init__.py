"""Audits: structure, behaviour and costs of a network, side by side."""
