"""Exchanges: messages after an outage, and the time from which they count."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.lunch.device import Exchange, ReceivedMessage
from loadtest.lunch.outcomes import Failure


@dataclass
class FakeDevice:
    is_online: bool = True
    authenticated_s: float = 0.0
    sent: list[Any] = field(default_factory=list)

    def send(self, exchange: Exchange) -> None:
        self.sent.append(exchange.open_request)


def pair() -> tuple[Exchange, Exchange]:
    till, wallet = Exchange(FakeDevice(), "p"), Exchange(FakeDevice(), "p")  # type: ignore[arg-type]
    till.partner, wallet.partner = wallet, till
    till.request({"type": "payment.scan"})
    return till, wallet


def test_a_step_starts_for_both_sides() -> None:
    till, wallet = pair()
    assert till.device.sent == [{"type": "payment.scan"}]  # type: ignore[attr-defined]
    assert wallet.sent_s >= till.sent_s > 0
    assert till.first_loss_s == wallet.first_loss_s == math.inf
    assert till.resumed_s(till.sent_s + 1) is None


def test_a_message_before_the_reconnect_is_not_resumed() -> None:
    till, wallet = pair()
    till.lost_s = till.sent_s + 1
    assert wallet.resumed_s(till.sent_s + 2) is None


def test_a_later_message_counts_from_the_new_authentication() -> None:
    till, wallet = pair()
    till.lost_s = till.sent_s + 1
    till.device.authenticated_s = till.sent_s + 3
    assert wallet.resumed_s(till.sent_s + 2) is None
    assert wallet.resumed_s(till.sent_s + 4) == till.resumed_s(till.sent_s + 4) == till.sent_s + 3


def test_a_step_without_a_connection_has_an_outage_from_its_start() -> None:
    till, _ = pair()
    till.partner.device.is_online = False  # type: ignore[misc]
    till.request({"type": "payment.cancel"})
    assert till.first_loss_s == till.partner.sent_s


def test_other_messages_are_skipped_and_an_error_ends_the_step() -> None:
    till, _ = pair()
    for message in ({"type": "payment.pending"}, {"type": "payment.result", "status": "approved"}):
        till.put(ReceivedMessage(message, 1.0))
    assert till.wait_for(lambda message: message["type"] == "payment.result").message["status"] == "approved"
    till.put(ReceivedMessage({"type": "error", "code": "id_reused"}, 2.0))
    with pytest.raises(Failure, match=r"^refused: error \(id_reused\)$"):
        till.wait_for(lambda message: False)
