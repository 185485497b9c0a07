"""Prometheus metrics and the Grafana dashboard made from their table."""
