"""Checkpoints of the reference, RoboVLMs: read, converted, verified."""
