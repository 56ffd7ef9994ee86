"""Rows put into a project's settings and taken out again: the rows of an item, and all that it left."""
