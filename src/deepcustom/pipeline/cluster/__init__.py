"""Tasks on a Ray cluster: sent with their code, watched, and done again elsewhere where one is lost."""
