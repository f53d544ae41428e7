"""A till: scans, cancels and refunds that survive lost connections and restarts.

Journal before send: each scan, cancel and refund is on disk before its first message leaves (`journal`). The entry
goes once the outcome is known.

Resend until answered: a request ends with an answer, with proof that nothing happened, or with an unknown outcome
(`open_payments`, `open_scan`). A repeat carries the same id and body, so it never charges or refunds twice.

Recovery at start: entries of an earlier process are resent once there is a connection, and `recovered()` returns their
outcomes (`recovery`). A journaled cancel takes precedence over the scans that it covers: those are not resent.

`client` is the public class. It adds queries, shifts and unsolicited results.
"""
