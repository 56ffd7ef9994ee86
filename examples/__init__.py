"""Worked examples, in a package, so that ``examples.margin_loss:MarginLoss`` finds no other class."""
