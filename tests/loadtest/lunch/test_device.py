"""Which of a step's messages came after an outage, and from when that counts."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.lunch.device import Heard, Talk
from loadtest.lunch.outcomes import Failure


@dataclass
class FakeDevice:
    is_online: bool = True
    signed_in_s: float = 0.0
    sent: list[Any] = field(default_factory=list)

    def send(self, talk: Talk) -> None:
        self.sent.append(talk.open)


def pair() -> tuple[Talk, Talk]:
    till, wallet = Talk(FakeDevice(), "p"), Talk(FakeDevice(), "p")  # type: ignore[arg-type]
    till.partner, wallet.partner = wallet, till
    till.ask({"type": "payment.scan"})
    return till, wallet


def test_a_step_begins_for_both_sides() -> None:
    till, wallet = pair()
    assert till.device.sent == [{"type": "payment.scan"}]  # type: ignore[attr-defined]
    assert wallet.sent_s >= till.sent_s > 0
    assert till.first_loss_s == wallet.first_loss_s == math.inf
    assert till.resumed_s(till.sent_s + 1) is None


def test_what_comes_before_the_lost_side_is_back_is_in_time() -> None:
    till, wallet = pair()
    till.lost_s = till.sent_s + 1
    assert wallet.resumed_s(till.sent_s + 2) is None


def test_what_comes_later_counts_from_the_new_sign_in() -> None:
    till, wallet = pair()
    till.lost_s = till.sent_s + 1
    till.device.signed_in_s = till.sent_s + 3
    assert wallet.resumed_s(till.sent_s + 2) is None
    assert wallet.resumed_s(till.sent_s + 4) == till.resumed_s(till.sent_s + 4) == till.sent_s + 3


def test_a_step_that_begins_without_a_connection_has_an_outage_from_its_start() -> None:
    till, _ = pair()
    till.partner.device.is_online = False  # type: ignore[misc]
    till.ask({"type": "payment.cancel"})
    assert till.first_loss_s == till.partner.sent_s


def test_unwanted_messages_are_passed_over_and_an_error_ends_the_step() -> None:
    till, _ = pair()
    for message in ({"type": "payment.pending"}, {"type": "payment.result", "status": "approved"}):
        till.put(Heard(message, 1.0))
    assert till.wait_for(lambda message: message["type"] == "payment.result").message["status"] == "approved"
    till.put(Heard({"type": "error", "code": "id_reused"}, 2.0))
    with pytest.raises(Failure, match=r"^refused: error \(id_reused\)$"):
        till.wait_for(lambda message: False)
