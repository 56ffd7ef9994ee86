"""Worked examples; a package, so that ``examples.margin_loss:MarginLoss`` finds this one and no other."""
