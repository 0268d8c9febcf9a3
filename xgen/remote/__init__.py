"""Commands of a laptop that a cluster's own xgen runs, over ssh (docs/remote.md)."""
