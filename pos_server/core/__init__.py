"""The rules, pure: no I/O, no clock, no randomness. Time and chance are arguments."""
