"""Random operations on an in-memory ledger and on a simple model: all decisions and rows must agree."""

from tests.model.memory_ledger import MemoryLedger
from tests.model.runs import EXAMPLES_OF_EVERYTHING, live
from tests.tiers import short_and_long


@short_and_long("examples", 60, EXAMPLES_OF_EVERYTHING)
def test_decisions_and_the_model_agree(examples: int) -> None:
    live(MemoryLedger(), examples=examples)
