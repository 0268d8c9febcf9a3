"""Learning from preference pairs. Importing this package is cheap; its trainer brings torch."""
