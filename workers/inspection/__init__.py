"""What is known of the data before anything is trained on it."""
