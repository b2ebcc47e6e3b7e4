"""What a variant costs and how often it is right."""
