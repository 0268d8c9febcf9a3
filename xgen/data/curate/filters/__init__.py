"""Filters of text: published heuristics, language, rules of one's own, personal data."""
