"""Curation: raw text becomes a deduplicated, filtered, balanced token store, in audited steps."""
