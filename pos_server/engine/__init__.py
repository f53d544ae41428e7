"""The batch engine: every change of a payment passes through it."""
