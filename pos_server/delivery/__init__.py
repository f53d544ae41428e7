"""Delivers notices to connected devices, at this server and at others."""
