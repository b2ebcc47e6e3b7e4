"""Putting the program's parts together, by what they are for; ``bootstrap`` joins them."""
