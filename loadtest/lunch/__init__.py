"""The store at lunchtime, played by locust."""
