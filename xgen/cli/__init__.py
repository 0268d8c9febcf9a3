"""The commands, one file each; every import that costs time is inside the function that needs it."""
