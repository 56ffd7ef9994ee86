"""What every stage shares: where files lie, what a run records, and profiles of settings."""
