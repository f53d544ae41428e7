"""Entry point of `pos-server`: parse the command line, run the command, and print an error as one line on stderr."""

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..core.errors import PosError
from ..ledger.failures import DATABASE_ERRORS, Phase, WrongSession, classify
from ..postgres.os_user import EmbeddedPostgresError
from ..settings import load_settings
from ..telemetry.logs import configure_logging
from .accounting_commands import add_accounting_commands
from .command import EXIT_ERROR, EXIT_USAGE, Run, WrongUsage
from .console import say
from .office_commands import add_office_commands
from .server_commands import add_server_commands, run_demo_command

# Without errors of files, which commands read and write too.
_DATABASE_ERRORS = (*(kind for kind in DATABASE_ERRORS if kind is not OSError), ConnectionError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status: 0 success, 1 findings of the audit, 2 wrong usage, 3 an error."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    configure_logging("warning" if arguments.run is run_demo_command else "info")
    try:
        settings = load_settings(
            host=getattr(arguments, "host", None), port=getattr(arguments, "port", None), data_dir=arguments.data_dir
        )
        if arguments.data_dir is not None and settings.database_url is not None:
            raise WrongUsage(
                "--data-dir has no effect while POS_DATABASE_URL is set. Unset the one that you do not mean"
            )
        status: int = arguments.run(arguments, settings)
    except WrongUsage as error:
        say(f"pos-server: {error}")
        return EXIT_USAGE
    except (PosError, EmbeddedPostgresError, WrongSession) as error:
        say(f"pos-server: {error}")
        return EXIT_ERROR
    except _DATABASE_ERRORS as error:
        cause = str(error) or type(error).__name__
        saved = "No partial change was saved."
        if classify(error, Phase.WRITE).may_have_committed:
            saved = "The last change was saved completely or not at all: look before you repeat the command."
        say(f"pos-server: database error: {cause}. {saved} Retry when the database is available.")
        return EXIT_ERROR
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pos-server",
        description="A real-time point-of-sale payment backend. Settings are read from POS_… environment variables. "
        "Without POS_DATABASE_URL it runs an embedded Postgres in --data-dir.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.add_argument("--data-dir", type=Path, help="directory of the keys and the embedded Postgres")
        subparser.set_defaults(run=run)
        return subparser

    add_server_commands(command)
    add_accounting_commands(command)
    add_office_commands(command)
    return parser


def _terminated(number: int, frame: object) -> NoReturn:
    # Unwind the stack to stop the embedded Postgres. A running server replaces this handler.
    raise SystemExit(128 + number)
