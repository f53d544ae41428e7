"""The batch engine: every change of a payment passes through it, and nothing else changes a payment.

    submit ──▶ queue ──▶ take a batch ──▶ load ──▶ decide ──▶ apply ──▶ publish
               bounded   (one lane)       read     pure       one       notices
                                                              commit

**Batches.** There is no timer. While one batch is at the database, operations queue; the next batch takes all of them,
up to a bound. A lone operation waits for nothing, and batches grow by themselves under load.

**Lanes and the turn.** A lane is a database connection that runs one batch at a time. A lane holds the turn while it
takes a batch, loads and decides it, and passes the turn on before it writes:

    lane 1   [take load decide]( apply   ) publish   [take load decide]( apply …
    lane 2                     [take load decide]( apply   ) publish   [take …
             └─ holds the turn ┘

So one batch is decided while another is written, and the turn keeps batches full. A till or a wallet is in one lane at
a time, so its operations are decided in the order in which they came. Rows that an operation does not name, such as the
wallet of a payment that is canceled, are guarded by their versions, as they are between servers.

**Exactly one outcome.** Every accepted operation ends decided, or BUSY (nothing happened), or UNKNOWN_OUTCOME (a commit
may have happened and could not be confirmed). A batch can always be attempted again: decisions start from committed
rows, and a stored payment is found instead of made twice.

    authorizer.py     the queue, the lanes, and a batch's way through the stages
    batch_record.py   the record of a finished batch, for metrics and traces
    expiry.py         submits payments whose time for the PIN is over
    risk_hook.py      guards the site's own risk function
"""
