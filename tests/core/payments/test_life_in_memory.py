"""Random operations on an in-memory ledger and on a simple model: all decisions and rows must agree."""

from tests.model.memory_ledger import MemoryLedger
from tests.model.runs import live


def test_decisions_and_the_model_agree() -> None:
    live(MemoryLedger(), examples=100)
