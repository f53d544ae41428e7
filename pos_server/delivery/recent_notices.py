"""Notices of the last seconds, kept for devices that move to another server while a notice is on its way."""

from collections import deque

from ..core.protocol.notices import Notice, Recipient

# Longer than a message takes from server to server. A device that opens elsewhere may have missed notices of this age.
RECENT_S = 2.0
_NOTICES_MAX = 20_000


class RecentNotices:
    """Notices of the last RECENT_S, at most 20,000. `now_s` is the time of any one clock, in seconds."""

    def __init__(self) -> None:
        self._all: deque[tuple[float, Notice]] = deque()
        # By recipient as well, because every device that opens elsewhere looks its notices up.
        self._of: dict[Recipient, deque[Notice]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, notice: Notice, now_s: float) -> None:
        """Keep a notice. The oldest one goes if there are too many."""
        if len(self._all) >= _NOTICES_MAX:
            self._forget(now_s, at_least=1)
        self._all.append((now_s, notice))
        self._of.setdefault(_anyone(notice.recipient), deque()).append(notice)

    def of(self, recipient: Recipient, now_s: float) -> list[Notice]:
        """Return the notices for any device of a recipient, oldest first."""
        self._forget(now_s)
        return list(self._of.get(_anyone(recipient), ()))

    def _forget(self, now_s: float, at_least: int = 0) -> None:
        while self._all and (at_least > 0 or self._all[0][0] < now_s - RECENT_S):
            at_least -= 1
            _, oldest = self._all.popleft()
            recipient = _anyone(oldest.recipient)
            of_recipient = self._of[recipient]
            of_recipient.popleft()
            if not of_recipient:
                del self._of[recipient]


def _anyone(recipient: Recipient) -> Recipient:
    return Recipient(recipient.kind, recipient.number)
