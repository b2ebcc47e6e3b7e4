"""What runs on the cluster for one job, from its order to its end."""
