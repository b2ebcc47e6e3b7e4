"""The cloud side: API, registry, rollout engine, telemetry, certificate authority, CLI and SDK."""
