"""Traces a number or a file back to the raw data, and verifies every hash on the way."""
