"""A new project: what its images are, its first settings, its folders, and how long its first run takes."""
