"""Random operations on a ledger in Postgres and on a plain model: every decision and every row must agree."""

from collections.abc import Iterator

import pytest

from tests.model.postgres_ledger import PostgresLedger
from tests.model.runs import EXAMPLES_OF_EVERYTHING, live
from tests.tiers import short_and_long


@pytest.fixture
def ledger(dsn: str) -> Iterator[PostgresLedger]:
    opened = PostgresLedger(dsn)
    yield opened
    opened.close()


@short_and_long("examples", 25, EXAMPLES_OF_EVERYTHING)
def test_the_ledger_and_the_model_agree(examples: int, ledger: PostgresLedger) -> None:
    live(ledger, examples=examples)
