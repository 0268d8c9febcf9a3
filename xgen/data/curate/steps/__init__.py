"""The steps of a curation, each of independent items whose results are folders that appear whole."""
