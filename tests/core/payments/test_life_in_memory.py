"""Random operations on a ledger in memory and on a plain model: every decision and every row must agree."""

from tests.model.memory_ledger import MemoryLedger
from tests.model.runs import live


def test_decisions_and_the_model_agree() -> None:
    live(MemoryLedger(), examples=100)
