"""Training: one loop from a laptop to a cluster, exact under interruption."""
