"""Measures whether accounting work slows payments down."""
