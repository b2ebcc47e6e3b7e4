"""The loop on a Ray cluster: Ray Train around it, and what workers tell the driver."""
