"""The rows that a batch passes to Postgres have the column order of its types."""

import asyncpg
import pytest

from pos_server.ledger.batch_rows import ATTRIBUTES, OperationKey

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("type_name", "names"),
    [
        ("operation_key", OperationKey._fields),
        *(
            (name, ("seen_version", *names) if name in ("wallet_change", "payment_change") else names)
            for name, names in ATTRIBUTES.items()
        ),
        ("joined_shift", ("terminal_number", "shift_id")),
    ],
)
async def test_attributes_match_the_columns_of_the_types(
    type_name: str, names: tuple[str, ...], connection: asyncpg.Connection
) -> None:
    attributes = await connection.fetch(
        "select attname from pg_attribute where attrelid = $1::regclass and attnum > 0 order by attnum", type_name
    )
    assert tuple(row["attname"] for row in attributes) == names
