"""Eight bits instead of 32, and which layers must stay in float."""
