"""Payments, and the rules that decide what becomes of them.

A payment changes only through an operation (`operations.py`): a scan, a cancel, a refund, a confirmation, an expiry.
Operations are decided in batches. The caller loads every row that a batch needs into a `Snapshot`; `decide` takes the
operations in order, and each decision sees the ones before it; the result is one outcome per operation and a
`Changeset`, all rows to write. Nothing is locked meanwhile. The changeset holds the version of each wallet and payment
as it was loaded, and the write succeeds only if all of them are unchanged. Otherwise the whole batch is decided again
on fresh rows, so a single guard settles every race.

    payment.py         a payment, its statuses and transitions
    operations.py      operations and their outcomes
    snapshot.py        the rows that a batch reads and writes
    batch.py           a batch during its decision
    decide.py          the entry point: `decide`
    scans.py, confirmations.py, reversals.py    the decisions, one file per kind of operation
    postings.py        movements of money
    rules.py, fees.py  limits, PIN rules, risk hook, fees
    declines.py        decline codes, with advice to the cashier for each
"""
