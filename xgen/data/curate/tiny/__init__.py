"""A raw corpus of real text from installed packages, with planted duplicates, spam, leaks and broken files."""
