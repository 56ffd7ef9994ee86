"""Where a number or a file comes from, back to the raw data, every hash on the way verified."""
