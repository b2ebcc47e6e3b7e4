"""Simulated devices: a fleet of MQTT clients in one process, to rehearse, test and measure."""
