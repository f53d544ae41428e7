"""Commands that run the server or its database, or print its documents.

What only one command needs is imported when it runs, because every command starts with this module.
"""

import argparse
import os
import subprocess

from ..core.errors import PosError
from ..ledger.database import describe_dsn, libpq_environment
from ..ledger.migrate import MigrationError
from ..master_keys import keyring_for
from ..postgres.binaries import find_program
from ..postgres.embedded import EmbeddedPostgresError, default_data_dir
from ..postgres.keeper import kept_running
from ..settings import Settings, new_master_key
from .command import AddCommand
from .console import print_out, say
from .ledger_access import database, prepare, run_loop


def add_server_commands(command: AddCommand) -> None:
    """Add `run`, `demo`, `migrate`, `postgres`, `master-key`, `openapi` and `asyncapi`."""
    run = command("run", _run, "serve terminals and wallets until SIGTERM")
    demo = command("demo", run_demo_command, "play a short store day against a real server, then keep serving")
    for serving_command in (run, demo):
        serving_command.add_argument("--host", help="address to listen on (127.0.0.1)")
        serving_command.add_argument("--port", type=int, help="port to listen on (8080; 0: any free one)")
    demo.add_argument("--once", action="store_true", help="exit after the store day")
    demo.add_argument("--json", action="store_true", help="print one JSON summary on standard output")
    command("migrate", _migrate, "migrate the database's schema to this version")
    postgres = command(
        "postgres", _postgres, "run a Postgres program on the embedded Postgres: psql, pg_dump, pg_basebackup …"
    )
    postgres.add_argument("--new", action="store_true", help="create an empty Postgres in --data-dir, to restore into")
    postgres.add_argument("program", help="name of the program, such as pg_dump")
    postgres.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the program")
    command("master-key", _master_key, "create a master key for POS_MASTER_KEYS")
    command("openapi", _openapi, "print the REST API as an OpenAPI 3.1 document in JSON")
    command("asyncapi", _asyncapi, "print the WebSocket protocol as an AsyncAPI 3 document in JSON")


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    from ..server import rare_garbage_collection, serving

    with database(settings, "pos-server") as (dsn, data_dir, postgres):
        keyring = keyring_for(settings, data_dir)

        async def serve() -> int:
            await prepare(dsn, settings)
            async with serving(settings, keyring, dsn) as server, kept_running(postgres, server.stop):
                data = data_dir or describe_dsn(dsn)
                say(f"pos-server serves {server.url} (data: {data}). Stop it with Ctrl-C or SIGTERM.")
                await server.stop_wanted()
                say("stopping: finishing accepted requests …")
            return 0

        with rare_garbage_collection():
            return run_loop(serve())


def run_demo_command(arguments: argparse.Namespace, settings: Settings) -> int:
    from ..demo import run_demo
    from ..server import rare_garbage_collection

    if arguments.once and arguments.port is None:
        settings = settings.model_copy(update={"port": 0})
    with database(settings, "pos-server-demo") as (dsn, data_dir, _):
        keyring = keyring_for(settings, data_dir)

        async def prepare_and_play() -> int:
            try:
                await prepare(dsn, settings)
            except MigrationError as error:
                if data_dir is None:
                    raise
                raise MigrationError(f"{error}; or delete {data_dir}, which contains play money only") from error
            return await run_demo(settings, keyring, dsn, data_dir, once=arguments.once, as_json=arguments.json)

        with rare_garbage_collection():
            return run_loop(prepare_and_play())


def _migrate(arguments: argparse.Namespace, settings: Settings) -> int:
    with database(settings, "pos-server") as (dsn, _, _):
        applied = run_loop(prepare(dsn, settings))
    for name in applied:
        print_out(f"applied {name}")
    if not applied:
        print_out("the database is up to date")
    return 0


def _postgres(arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url is not None:
        itself = f'{arguments.program} --dbname="$POS_DATABASE_URL" …'
        raise PosError(f"this command is for the embedded Postgres, but POS_DATABASE_URL is set. Run: {itself}")
    data_dir = settings.data_dir or default_data_dir("pos-server")
    if arguments.new and (data_dir / "postgres").exists():
        raise EmbeddedPostgresError(f"{data_dir} already contains a ledger. Name another directory with --data-dir")
    path = find_program(arguments.program, settings.postgres_bin_dir)
    with database(settings, "pos-server", must_exist=not arguments.new) as (dsn, _, _):
        # PG… variables of the operator's shell select another server, and POS_… variables can contain master keys.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "POS_"))}
        command = [path, *arguments.arguments]
        return subprocess.run(command, env=inherited | libpq_environment(dsn), check=False).returncode  # noqa: S603


def _master_key(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(new_master_key("k1"))
    return 0


def _openapi(arguments: argparse.Namespace, settings: Settings) -> int:
    from ..api.openapi import openapi_json

    print_out(openapi_json().decode().rstrip("\n"))
    return 0


def _asyncapi(arguments: argparse.Namespace, settings: Settings) -> int:
    from ..api.asyncapi import asyncapi_json

    print_out(asyncapi_json(settings.wire_limits()).decode().rstrip("\n"))
    return 0
