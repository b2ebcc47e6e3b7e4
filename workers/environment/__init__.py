"""A job's own Python packages."""
