"""The log file for the server's stderr, and errors that quote its end with advice."""

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from pos_server.postgres.os_user import EmbeddedPostgresError, open_private

LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_BYTES_MAX = 8192
LOG_TAIL_LINES_MAX = 12

# Log text and the advice for it. The first text that occurs counts.
ADVICE = (
    ("No space left on device", "Free some space on the disk of {0}."),
    ("could not look up effective user ID", "Give the user that runs this an entry in /etc/passwd."),
    ("Cannot allocate memory", "Free some memory, or use a smaller shared_buffers_mb."),
    ("Permission denied", "Give everything in {0}/postgres to the owner of {0}/postgres."),
    ("lock file", "Stop the other Postgres that uses {0}/postgres."),
    ("", "Fix the problem in these lines and start again; if {0}/postgres is damaged, restore a backup."),
)


class ServerLog:
    """The file `postgres.log` in `data_dir`; `postgres.log.1` has the log before the last rotation."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "postgres.log"
        self._start = 0

    def open(self) -> BinaryIO:
        """Open the log for appending by the server; rotate it first if it has grown too large."""
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size > LOG_BYTES_MAX:
                self.path.replace(self.path.with_name("postgres.log.1"))
        log = os.fdopen(open_private(self.path), "ab")
        self._start = log.tell()
        return log

    def failure(self, problem: str) -> EmbeddedPostgresError:
        """Return an error that quotes the end of the log since `open`, with advice."""
        with self.path.open("rb") as log:
            log.seek(max(self._start, self.path.stat().st_size - LOG_TAIL_BYTES_MAX))
            text = log.read(LOG_TAIL_BYTES_MAX).decode("utf-8", "replace").rstrip()
        lines = "".join(f"\n  {line}" for line in text.splitlines()[-LOG_TAIL_LINES_MAX:])
        advice = next(advice for symptom, advice in ADVICE if symptom in text)
        return EmbeddedPostgresError(f"{problem} The end of {self.path}:{lines}\n{advice.format(self.path.parent)}")
