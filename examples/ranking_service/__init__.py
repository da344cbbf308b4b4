"""A recommender behind HTTP, in small: what otel-personalization instruments. See README.md."""
