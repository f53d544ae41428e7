"""A `__repr__` for records with fields that must not appear in logs or error messages.

Records are msgspec structs. Compared with a dataclass of fifteen fields, one is created in a fifth of the time and
copied with changes in a sixth, and it is immutable. `gc=False` excludes records from garbage collection: they are
never part of a reference cycle.
"""

from collections.abc import Callable

from msgspec import Struct


def repr_without(*hidden: str) -> Callable[[Struct], str]:
    """Return a `__repr__` that omits these fields."""

    def redacted_repr(record: Struct) -> str:
        fields = (f"{name}={getattr(record, name)!r}" for name in record.__struct_fields__ if name not in hidden)
        return f"{type(record).__name__}({', '.join(fields)})"

    return redacted_repr
