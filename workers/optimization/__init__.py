"""From trained weights to a model package: export, optimize, measure, pack."""
