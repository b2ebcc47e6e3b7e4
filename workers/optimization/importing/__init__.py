"""Models that were made elsewhere: looked at, tried in a limited process, measured."""
