"""The settings of a session that the server relies on, checked once in each new connection.

The server asks for some of them at the start of a session, and a pooler can drop what it asks for. The others have the
right defaults, which `alter role`, `alter database` or postgresql.conf can change. Each would go unnoticed: payments
would be approved, and a transfer could be changed, lost, or stored under another day. Settings that make every payment
fail need no check, such as a wrong `search_path` or `default_transaction_read_only`.
"""

from typing import NamedTuple

import asyncpg

from .failures import WrongSession
from .sql import QUERIES

APP_ROLE = "pos_app"


class _Setting(NamedTuple):
    """A setting with its allowed values, the best one first, and the consequence of any other value."""

    name: str
    allowed: tuple[str, ...]
    consequence: str


# The owner, who migrates and audits, has more rights than a session that serves requests.
_LIMITED = (
    _Setting("current_user", (APP_ROLE,), "stored transfers could be changed"),
    _Setting("is_superuser", ("off",), "stored transfers could be changed"),
)
_ALWAYS = (
    _Setting("session_replication_role", ("origin",), "the rules of the schema would not be enforced"),
    # `local` does not wait for a synchronous standby, which can be added while the session exists.
    _Setting("synchronous_commit", ("on", "remote_apply", "remote_write"), "an approved payment could be lost"),
    _Setting("fsync", ("on",), "an approved payment could be lost"),
    # A commit that did not wait for its standby is reported as a warning: see durability.py.
    _Setting(
        "client_min_messages",
        ("warning", "notice", "log", "debug1", "debug2", "debug3", "debug4", "debug5"),
        "a commit without its synchronous standby would not be noticed",
    ),
    _Setting("transaction_isolation", ("read committed",), "statements would not see the rows that they waited for"),
    _Setting("TimeZone", ("UTC", "Etc/UTC"), "times and days could be wrong"),
    _Setting("DateStyle", ("ISO, MDY", "ISO, DMY", "ISO, YMD"), "days in seals would be written differently"),
    _Setting("client_encoding", ("UTF8",), "names and texts could be stored wrongly"),
    _Setting("standard_conforming_strings", ("on",), "rules of the schema could be read differently"),
)


async def check_session(connection: asyncpg.Connection, role: str | None) -> None:
    """Raise WrongSession if a setting of this session is wrong.

    `role` is the role that the session was asked to have; None: any, and its rights are not checked. Raises asyncpg's
    errors too.
    """
    needed = _ALWAYS if role is None else (*_LIMITED, *_ALWAYS)
    rows = await connection.fetch(QUERIES["session_settings"], [setting.name for setting in needed])
    values = {row["name"]: row["value"] for row in rows}
    for setting in needed:
        if values[setting.name] not in setting.allowed:
            raise WrongSession(setting.name, values[setting.name], setting.allowed[0], setting.consequence)
