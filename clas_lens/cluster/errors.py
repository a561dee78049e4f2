"""What can go wrong with a cluster."""


class ClusterError(ValueError):
    """A cluster that cannot be had, workers that do not fit the work, or an item of work that failed on it three times."""
