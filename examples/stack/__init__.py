"""The live path on this machine: a ranking service, the Collector, and Prometheus."""
