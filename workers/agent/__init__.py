"""Claims jobs, starts their drivers and follows them."""
