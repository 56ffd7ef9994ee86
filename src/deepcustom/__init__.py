"""DeepCustom: adversarial images from trained generators, and what they are worth."""

__version__ = "0.1.0"
