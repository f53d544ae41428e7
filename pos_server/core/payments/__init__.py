"""Payments and the rules that decide them: `decide` takes a batch of operations and the rows that they need. Pure."""
