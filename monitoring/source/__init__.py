"""What the dashboards show, as typed source. `python -m monitoring.generate` makes Grafana's JSON of it."""
