"""Markup that is safe by construction, charts as SVG, numbers as a person reads them."""
