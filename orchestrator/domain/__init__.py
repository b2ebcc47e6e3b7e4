"""Pure decisions: frozen dataclasses in, values out; no clock, no database, no network."""
