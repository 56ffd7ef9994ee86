"""Data sets: where they come from, how they lie in memory and in files, and what is drawn from them."""
