"""Accounting of a merchant's day: shift reports, settlement statements, and seals over past transfers.

Everything here is derived from rows that payments wrote and never decides about a payment. A shift report sums what one
terminal did while a shift was open. A settlement statement sums one merchant's business day; the same day always gives
the same file. A seal hashes the transfers of past days into a chain, so that a later change of a row is detected.
"""
