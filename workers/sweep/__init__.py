"""Several trainings of one job, of which the best is registered."""
