"""Single measurements behind a design decision, each a program of its own."""
