"""OpenTelemetry instrumentation for recommender systems."""
