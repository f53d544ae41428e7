"""A till: it scans codes, and keeps a journal of each request whose outcome it does not know."""
