"""The `pos-server` command line.

A command on the ledger opens the database of `POS_DATABASE_URL`, or an embedded Postgres that runs for as long as the
command does. A server that is already running shares its embedded Postgres. Operator commands change rows as the
ledger's owner, and servers apply the change to the next payment.

Results are printed on standard output, everything else on stderr. An error is one line on stderr with exit status 3.

    main.py           the parser and the entry point
    command.py        the type of a command, and the exit statuses
    server_commands.py, accounting_commands.py, office_commands.py    commands by subject
    operator_acts.py  the work of the office and accounting commands
    ledger_access.py  connections to the ledger
    console.py        output
"""
