"""Fewer channels, and the training that makes up for them."""
