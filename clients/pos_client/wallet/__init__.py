"""A wallet: it shows payment codes, online or offline, and confirms payments."""
