"""A till with a journal: entries are written before a send, and recovered by the next process."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pos_client.errors import OutcomeUnknown, ScanNotDone, ScanRefused
from pos_client.terminal.client import TerminalClient
from pos_client.terminal.journal import Journal
from pos_client.terminal.recovery import RecoveredScan
from pos_server.core.protocol.server_messages import TerminalPaymentResult
from tests.pos_client.fake_server import CANCELED, DECLINED, PAID, PENDING, FakeServer, Peer, fake_server
from tests.pos_client.fake_time import no_wait

CODE = "772000000001003123456789"
PAYMENT_ID = UUID("01890000-0000-7000-8000-000000000001")
OTHER_ID = "01890000-0000-7000-8000-000000000009"
DECIDED_AT_MS: int = PAID["decided_at_ms"]


async def silent(peer: Peer) -> None:
    await peer.welcome()


async def approving(peer: Peer) -> None:
    await peer.welcome()
    while True:
        await peer.answer(await peer.receive())


def journal_of(server: FakeServer, path: Path) -> Journal:
    journal = Journal(path, f"7 at {server.url}")
    journal.load()
    return journal


async def leave_open(server: FakeServer, path: Path, reference: str = "order-1") -> None:
    """Scan as a process that gets no answer and leaves an open entry."""
    async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
        await till.ready()
        with pytest.raises(OutcomeUnknown):
            await till.scan(code=CODE, amount_minor=1250, reference=reference, payment_id=PAYMENT_ID, timeout_s=0.1)


@pytest.mark.asyncio
async def test_a_scan_is_journaled_before_its_send_and_removed_with_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    journals: list[Journal] = []

    async def script(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        journals.append(journal_of(server, path))
        await peer.answer(scan)

    async with fake_server(script) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            result = await till.scan(code=CODE, amount_minor=1250, reference="order-1")
        (entry,) = journals[0].entries.values()
        assert (entry.payment_id, entry.code, entry.amount_minor) == (result.payment_id, CODE, 1250)
        final_journal = journal_of(server, path)
    assert final_journal.entries == {}
    assert final_journal.versions == {result.payment_id: 1}
    assert final_journal.since_ms == DECIDED_AT_MS
    assert CODE not in path.read_text()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        ({"code": "wrong_currency", "retryable": False}, ScanRefused),
        ({"code": "busy", "retryable": True, "retry_after_s": 100}, ScanNotDone),
    ],
)
async def test_a_scan_that_was_not_processed_is_not_recovered(
    refusal: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "till.journal"

    async def script(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), **refusal)

    async with fake_server(script) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            with pytest.raises(error):
                await till.scan(code=CODE, amount_minor=1250, reference="order-1")
        assert journal_of(server, path).entries == {}
    assert CODE not in path.read_text()


NOTHING_CAME = {**CANCELED, "version": 1, "reference": None, "amount_minor": None}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answers", "asked", "status"),
    [
        ([PAID], ["payment.query"], "approved"),
        ([DECLINED], ["payment.query"], "declined"),
        ([PENDING, CANCELED], ["payment.query", "payment.cancel"], "canceled"),
        (["payment_unknown", NOTHING_CAME], ["payment.query", "payment.cancel"], "canceled"),
    ],
)
async def test_the_next_process_asks_for_the_outcome_and_never_scans_again(
    answers: list[dict[str, Any] | str], asked: list[str], status: str, tmp_path: Path
) -> None:
    """The customer may have paid in cash since: what the server has not approved must not be charged any more."""
    path = tmp_path / "till.journal"
    received: list[dict[str, Any]] = []

    async def losing(peer: Peer) -> None:
        await peer.welcome()
        received.append(await peer.receive())

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        for answer in answers:
            received.append(await peer.receive())
            if isinstance(answer, str):
                await peer.refuse(received[-1], answer, retryable=False)
            else:
                await peer.answer(received[-1], answer)

    async with fake_server(losing, answering, silent) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            assert till.left_open == 1
            (recovered,) = await till.recovered()
            assert till.unread == 0
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            assert await till.recovered() == []
    assert [message["type"] for message in received] == ["payment.scan", *asked]
    assert {message["payment_id"] for message in received} == {str(PAYMENT_ID)}
    assert isinstance(recovered, RecoveredScan)
    assert (recovered.payment_id, recovered.reference, recovered.amount_minor) == (PAYMENT_ID, "order-1", 1250)
    assert isinstance(recovered.outcome, TerminalPaymentResult)
    assert recovered.outcome.status == status


@pytest.mark.asyncio
async def test_the_next_process_goes_on_with_an_unanswered_cancel_of_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def losing_the_cancel(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "payment_unknown", retryable=False)
        assert (await peer.receive())["type"] == "payment.cancel"
        peer.drop()

    async def answering(peer: Peer) -> None:
        await peer.welcome()
        cancel = await peer.receive()
        assert cancel["type"] == "payment.cancel"
        await peer.answer(cancel, NOTHING_CAME)

    async with fake_server(silent, losing_the_cancel, answering) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            (recovered,) = await till.recovered()
        assert journal_of(server, path).entries == {}
    assert isinstance(recovered.outcome, TerminalPaymentResult)
    assert recovered.outcome.status == "canceled"


@pytest.mark.asyncio
async def test_a_till_with_a_new_address_still_knows_its_open_payments(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def knowing(peer: Peer) -> None:
        await peer.welcome()
        await peer.answer(await peer.receive())

    async with fake_server(silent, knowing) as server:
        await leave_open(server, path)
        moved = server.terminal().model_copy(update={"server": server.url.replace("127.0.0.1", "localhost")})
        assert moved.server != server.url
        async with TerminalClient(moved, journal=path, backoff=no_wait()) as till:
            (recovered,) = await till.recovered()
            assert till.foreign == {}
    assert isinstance(recovered.outcome, TerminalPaymentResult)


@pytest.mark.asyncio
async def test_open_payments_of_another_activation_are_named_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    async with fake_server(silent) as server:
        await leave_open(server, path)
        other = server.terminal().model_copy(update={"server": "http://127.0.0.1:9", "device_key": bytes(32)})
        async with TerminalClient(other, journal=path, backoff=no_wait()) as till:
            assert (till.left_open, till.foreign) == (0, {f"7 at {server.url}": 1})
        assert list(journal_of(server, path).entries) == [f"scan {PAYMENT_ID}"]


@pytest.mark.asyncio
async def test_a_second_process_leaves_the_open_payments_of_the_first_alone(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    async with fake_server(silent) as server:
        await leave_open(server, path)
        first = TerminalClient(server.terminal(), journal=path, backoff=no_wait())
        second = TerminalClient(server.terminal(), journal=path, backoff=no_wait())
        assert (first.left_open, second.left_open) == (1, 0)


@pytest.mark.asyncio
async def test_a_replay_recovers_a_scan_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def replaying(peer: Peer) -> None:
        await peer.welcome()
        for _ in range(2):
            await peer.send(**{**PAID, "payment_id": str(PAYMENT_ID)})

    async with fake_server(silent, replaying) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            (recovered,) = await till.recovered()
            assert till.unread == 0
        assert journal_of(server, path).entries == {}
    assert isinstance(recovered.outcome, TerminalPaymentResult)
    assert recovered.outcome.status == "approved"


@pytest.mark.asyncio
async def test_a_recovered_scan_that_is_refused_stays_unknown_and_journaled(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def refusing(peer: Peer) -> None:
        await peer.welcome()
        await peer.refuse(await peer.receive(), "wrong_currency", retryable=False)

    async with fake_server(silent, refusing) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            (recovered,) = await till.recovered()
        assert list(journal_of(server, path).entries) == [f"scan {PAYMENT_ID}"]
    assert isinstance(recovered.outcome, OutcomeUnknown)


@pytest.mark.asyncio
async def test_closing_before_the_answer_leaves_the_scan_unknown_and_journaled(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    async with fake_server(silent) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            recovering = asyncio.create_task(till.recovered())
            await till.ready()
        (recovered,) = await recovering
        assert list(journal_of(server, path).entries) == [f"scan {PAYMENT_ID}"]
    assert isinstance(recovered.outcome, OutcomeUnknown)


@pytest.mark.asyncio
async def test_a_late_answer_is_removed_only_once_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    scan_timed_out = asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.welcome()
        scan = await peer.receive()
        await scan_timed_out.wait()
        await peer.answer(scan)

    async def late_sale(till: TerminalClient) -> None:
        await till.ready()
        with pytest.raises(OutcomeUnknown):
            await till.scan(code=CODE, amount_minor=1250, reference="order-1", timeout_s=0.1)
        scan_timed_out.set()
        late_result = await till._unread.get()
        till._unread.put(late_result)

    async with fake_server(late) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await late_sale(till)
        assert len(journal_of(server, path).entries) == 1
        scan_timed_out.clear()
        path.unlink()
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await late_sale(till)
            await till.result()
        assert journal_of(server, path).entries == {}


@pytest.mark.asyncio
async def test_the_next_process_resumes_and_drops_replayed_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    since: list[int | None] = []
    paid_ids: list[str] = []

    async def selling(peer: Peer) -> None:
        since.append((await peer.welcome())["since_ms"])
        scan = await peer.receive()
        paid_ids.append(scan["payment_id"])
        await peer.answer(scan)

    async def replaying(peer: Peer) -> None:
        since.append((await peer.welcome())["since_ms"])
        await peer.send(**{**PAID, "payment_id": paid_ids[0]})
        await peer.send(**{**PAID, "payment_id": OTHER_ID})

    async with fake_server(selling, replaying, server_time_ms=DECIDED_AT_MS - 1) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            assert str((await till.result()).payment_id) == OTHER_ID
    assert since == [None, DECIDED_AT_MS]


@pytest.mark.asyncio
async def test_a_result_that_was_not_processed_before_a_crash_arrives_again(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def selling(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**PAID, "payment_id": OTHER_ID, "decided_at_ms": DECIDED_AT_MS + 1})
        await peer.send(**{**PAID, "payment_id": str(PAYMENT_ID), "decided_at_ms": DECIDED_AT_MS + 2})

    async def crashing(server: FakeServer) -> None:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.result()
            await till.result()
            raise ZeroDivisionError

    async with fake_server(selling, server_time_ms=DECIDED_AT_MS) as server:
        with pytest.raises(ZeroDivisionError):
            await crashing(server)
        assert journal_of(server, path).since_ms == DECIDED_AT_MS


@pytest.mark.asyncio
async def test_a_client_that_is_closed_immediately_ends(tmp_path: Path) -> None:
    async with fake_server(silent) as server:
        await leave_open(server, tmp_path / "till.journal")
        async with TerminalClient(server.terminal(), journal=tmp_path / "till.journal", backoff=no_wait()) as till:
            pass
        assert [str(scan.outcome).split(": ")[1] for scan in await till.recovered()] == ["this client was closed"]


@pytest.mark.asyncio
async def test_an_empty_replay_advances_the_resume_time(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"

    async def replaying_nothing(peer: Peer) -> None:
        await peer.welcome()
        await peer.send(**{**PAID, "payment_id": OTHER_ID, "decided_at_ms": DECIDED_AT_MS - 500})

    async with fake_server(replaying_nothing, server_time_ms=DECIDED_AT_MS) as server:
        Journal(path, f"7 at {server.url}").settle({}, (), DECIDED_AT_MS - 1_000)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.result()  # comes after the replay
        assert journal_of(server, path).since_ms == DECIDED_AT_MS


@pytest.mark.asyncio
async def test_the_same_id_with_another_body_is_an_error_before_any_send(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    async with fake_server(silent) as server:
        await leave_open(server, path)
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            with pytest.raises(ValueError, match="was scanned with another code, amount or reference"):
                await till.scan(code=CODE, amount_minor=1, reference="order-1", payment_id=PAYMENT_ID)


@pytest.mark.asyncio
async def test_a_till_with_an_unwritable_journal_still_sells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        fake_server(approving) as server,
        TerminalClient(server.terminal(), journal=tmp_path, backoff=no_wait()) as till,
    ):
        assert (await till.scan(code=CODE, amount_minor=1250, reference="order-1")).status == "approved"
    assert "cannot write the journal" in caplog.text
    assert CODE not in caplog.text


@pytest.mark.asyncio
async def test_a_removal_that_fails_is_logged_and_made_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, settle, failures = tmp_path / "till.journal", Journal.settle, ["disk full"]

    def fail_once(journal: Journal, *arguments: Any) -> None:
        if failures:
            raise OSError(failures.pop())
        settle(journal, *arguments)

    monkeypatch.setattr(Journal, "settle", fail_once)
    async with fake_server(approving) as server:
        async with TerminalClient(server.terminal(), journal=path, backoff=no_wait()) as till:
            await till.scan(code=CODE, amount_minor=1250, reference="order-1")
            async with asyncio.timeout(5):
                while "disk full" not in caplog.text:  # noqa: ASYNC110 - the writer has no event for tests
                    await asyncio.sleep(0.001)
        assert failures == []
        journal = journal_of(server, path)
    assert journal.entries == {}
    assert journal.since_ms == DECIDED_AT_MS
