"""Measurements, each one command and one run: `make bench-checkout`, `make bench-browse`. Nothing here is a test."""
