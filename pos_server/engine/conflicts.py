"""The conflicts of a batch with commits of other servers: when it is split, and when a conflict is permanent."""

from collections.abc import Sequence

import asyncpg

from ..core.payments.contested import contested
from ..core.payments.operations import Operation
from ..core.payments.snapshot import Changeset, Snapshot


class Split(Exception):
    """The batch continues as several ones, decided in this order; `groups` are positions of its operations."""

    def __init__(self, groups: list[list[int]]) -> None:
        super().__init__(groups)
        self.groups = groups


class Conflicts:
    """The conflicts of one batch so far."""

    def __init__(self) -> None:
        self.count = 0
        self._violation: tuple[str | None, str | None] | None = None
        self._is_repeated = False
        self._lost: Changeset | None = None

    def add(self, error: Exception, lost: Changeset) -> None:
        """Record a conflict that undid the write of these changes."""
        violation = None
        if isinstance(error, asyncpg.UniqueViolationError):
            violation = (error.constraint_name, error.detail)
        self._is_repeated = violation is not None and violation == self._violation
        self._violation = violation
        self._lost = lost
        self.count += 1

    def is_permanent(self, operations: Sequence[Operation]) -> bool:
        """Return whether a lone operation, decided on fresh rows, collided with the same stored row again."""
        return self._is_repeated and len(operations) == 1

    def split(self, operations: Sequence[Operation], fresh: Snapshot) -> None:
        """Raise Split if a part of the batch, or each operation alone, has a better chance than the whole batch."""
        if self._lost is None or len(operations) == 1:
            return
        leaving = contested(operations, self._lost, fresh)
        self._lost = None
        everyone = range(len(operations))
        if 0 < len(leaving) < len(operations):
            raise Split([[each for each in everyone if each not in set(leaving)], leaving])
        if not leaving or self.count > 1:
            raise Split([[each] for each in everyone])
