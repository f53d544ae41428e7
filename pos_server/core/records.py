"""What records have in common that carry something no log and no error may show.

Records are msgspec's structs: made in a fifth of the time that a dataclass of fifteen fields takes, copied with changes
in a sixth, and truly frozen. `gc=False`: they are in no cycle, so Python's garbage search need not look at them.
"""

from collections.abc import Callable

from msgspec import Struct


def repr_without(*hidden: str) -> Callable[[Struct], str]:
    """A `__repr__` that leaves these fields out."""

    def shown(record: Struct) -> str:
        fields = (f"{name}={getattr(record, name)!r}" for name in record.__struct_fields__ if name not in hidden)
        return f"{type(record).__name__}({', '.join(fields)})"

    return shown
