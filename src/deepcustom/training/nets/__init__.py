"""The networks: the study's, one file for each data set, and those for images of any size.

``base`` has what they share, and makes them by their names.
"""
