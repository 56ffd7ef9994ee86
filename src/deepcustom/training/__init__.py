"""Networks, the one training loop, and what goes with it: device and precision, weights, checkpoints."""
