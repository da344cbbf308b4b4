"""What a service does with otel-personalization; each example runs from the root of a checkout."""
