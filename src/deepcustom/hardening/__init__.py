"""Adversarial training: ways to train a fresh network that also sees adversarial images, a file each."""
