"""`pos-server` that dies between a commit and its notices: with SIGKILL, once the file in DIE_AT exists."""

import os
import signal
import sys
from pathlib import Path

from pos_server.cli.main import main
from pos_server.core.payments.operations import Outcome
from pos_server.delivery.publisher import Publisher

_publish = Publisher.publish


def _die_or_publish(self: Publisher, outcome: Outcome, reply_to: str | None) -> None:
    if Path(os.environ["DIE_AT"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    _publish(self, outcome, reply_to)


Publisher.publish = _die_or_publish  # type: ignore[method-assign]
sys.exit(main())
