"""Planted conversations, preference pairs and prompts that a model of 1.6M parameters can learn from in minutes."""
