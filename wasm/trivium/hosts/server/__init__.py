"""CPython's world: what the edge and the cloud share."""
