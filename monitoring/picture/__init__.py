"""Draws a Grafana dashboard from its JSON and a live Prometheus, without Grafana."""
