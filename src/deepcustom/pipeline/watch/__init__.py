"""What runs in a project at this moment, how far it is, and how long it will still take."""
