"""Images of the user's own: a file for each kind of source, and what they share."""
