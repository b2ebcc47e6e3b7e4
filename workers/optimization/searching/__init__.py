"""Which variants are tried, which are kept, and why."""
