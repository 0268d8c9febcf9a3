"""What is run in a verifier's process, a file for each kind. Nothing of xgen's specs, no pydantic, no torch."""
