"""Telemetry judged: what devices did with a version, against their past and a control cohort."""
