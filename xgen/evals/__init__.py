"""Evaluation: what a checkpoint can do, and how sure we are of it."""
