"""How fast DeepCustom is, and how much memory it takes, measured side by side with others."""
