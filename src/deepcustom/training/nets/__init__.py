"""The networks, one file for each data set; ``base`` has what they share, and makes them by their names."""
