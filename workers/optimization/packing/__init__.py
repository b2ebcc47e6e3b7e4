"""A search's result as the manifest and files of a version."""
