"""The merchant's day: shifts and their reports, settlement statements, and seals over past transfers. Pure."""
