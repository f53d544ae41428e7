"""All rows that the server stores in Postgres, and all SQL.

- Statements are named queries in `sql/*.sql`, one file per subject. Migrations in `migrations/` are plain SQL with
  recorded checksums; an applied migration never changes.
- A batch of payments takes one statement to load (`payments.load_snapshot`) and one to store
  (`payments.apply_changes`), however large it is.
- Nothing is locked between the two. The store takes effect only if every wallet and payment still has the version that
  was loaded; otherwise it changes nothing, and the engine decides the batch again.
- The server runs as the role `pos_app`, which may insert transfers but never update or delete them. Only the operator's
  commands run as the owner of the database.
- Transfer ids are assigned in order but committed in any order. Anything that reads "all transfers up to an id"
  therefore waits until the transactions that were writing at that moment have ended (`horizon.py`). Balances use
  such a horizon: the sum of the transfers up to it is stored, later transfers are added at each read (`rollup.py`).
  Seals, settlement and the archive build on the same rule.
- Old payments move into files (`archive.py`); `audit.py` proves from the rows alone that the money is right.

    payments.py, batch_rows.py, rows.py          a batch: load, store, and rows to records and back
    directory.py                                 merchants, their terms, terminals, wallets and devices
    stores.py, wallets.py, reports.py            what back offices and issuers read and change
    history.py, pins.py, shifts.py               what devices read and change
    api_keys.py, idempotency.py                  what the REST API stores
    rollup.py, horizon.py, exclusive.py          balances, the horizon that they need, one run at a time
    settlement.py, seals.py, archive*.py, *audit.py   the operator's accounting
    database.py, session_checks.py, failures.py, durability.py   connections, and what their errors mean
    leadership.py, migrate.py, collations.py, sql/, migrations/   the leading server, the schema and its order

A new column on a table that `pos_app` updates needs a grant in its migration, as does a new table.
"""
