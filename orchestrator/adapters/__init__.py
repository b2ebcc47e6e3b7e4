"""The world outside: SQL, MQTT, files, keys, processes."""
