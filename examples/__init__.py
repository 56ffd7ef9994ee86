"""Worked examples. A package, so that ``examples.margin_loss:MarginLoss`` finds only the class of this folder."""
