"""Scoring networks: on images made against another network, and under attack themselves, a file each."""
