import logging
from pathlib import Path
from uuid import UUID

import pytest

from pos_client.terminal.journal import FILE_BYTES_MAX, HEARD_MAX, OPEN_MAX, Journal, JournaledScan

DEVICE = "7 at http://pos.test"
CODE = "772000000001003123456789"


def scan(number: int, *, device: str = DEVICE) -> JournaledScan:
    return JournaledScan(
        device=device,
        payment_id=UUID(int=number),
        reference=f"order-{number}",
        amount_minor=1250,
        currency="EUR",
        code=CODE,
        created_at_ms=1_700_000_000_000,
    )


def loaded(path: Path, device: str = DEVICE) -> Journal:
    journal = Journal(path, device)
    journal.load()
    return journal


def written(path: Path, *scans: JournaledScan) -> Journal:
    journal = Journal(path, DEVICE)
    for entry in scans:
        journal.add(entry)
    return journal


def test_what_is_added_is_there_for_the_next_process_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "till.journal"
    written(path, scan(1), scan(2))
    assert list(loaded(path).open.values()) == [scan(1), scan(2)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert CODE not in repr(scan(1))


def test_a_settled_scan_leaves_with_its_code_and_its_version_stays(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2), scan(3)).settle({UUID(int=1): 2, UUID(int=9): 1}, {scan(2).key}, 5_000)
    journal = loaded(path)
    assert list(journal.open) == [scan(3).key]
    assert (journal.heard, journal.since_ms) == ({UUID(int=1): 2, UUID(int=9): 1}, 5_000)
    journal.settle({UUID(int=3): 1}, (), 4_000)
    assert CODE not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert loaded(path).since_ms == 5_000


@pytest.mark.parametrize("torn_bytes", [1, 2, 30, 200])
def test_a_torn_last_line_loses_no_other_and_none_that_follow(torn_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2))
    path.write_bytes(path.read_bytes()[:-torn_bytes])
    assert scan(1).key in loaded(path).open
    written(path, scan(3))
    assert {scan(1).key, scan(3).key} <= set(loaded(path).open)


@pytest.mark.parametrize("damage", [b"\x00", b"9", b"\n", b"\xff"])
def test_a_damaged_line_is_skipped_and_said_without_its_content(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2), scan(3))
    content = path.read_bytes()
    at = content.index(b"1250", content.index(b"order-2"))
    path.write_bytes(content[:at] + damage + content[at + 1 :])
    assert list(loaded(path).open) == [scan(1).key, scan(3).key]
    assert "damaged lines of the journal" in caplog.text
    assert CODE not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff" * 5_000, b"00000000 {}"])
def test_a_file_that_is_no_journal_stops_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    path.write_bytes(content)
    journal = loaded(path)
    assert journal.open == {}
    journal.add(scan(1))
    assert list(loaded(path).open) == [scan(1).key]


def test_scans_of_another_till_are_not_ours_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1, device="8 at http://pos.test"), scan(2))
    loaded(path).settle({UUID(int=2): 1}, (), 5_000)
    other = loaded(path, "8 at http://pos.test")
    assert list(other.open) == [scan(1).key]
    assert (other.heard, other.since_ms) == ({}, None)


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    first = written(path, scan(1))
    second = loaded(path)
    second.add(scan(2))
    first.settle({UUID(int=1): 1}, (), None)
    second.add(scan(3))
    assert list(loaded(path).open) == [scan(2).key, scan(3).key]


def test_its_size_is_bounded_and_the_newest_scans_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "till.journal"
    journal = written(path)
    number = 0
    while "was dropped" not in caplog.text:
        number += 1
        journal.add(scan(number))
        assert path.stat().st_size <= FILE_BYTES_MAX + 1_000
    assert list(loaded(path).open) == [scan(each).key for each in range(number - OPEN_MAX + 1, number + 1)]
    journal.settle({UUID(int=each): 1 for each in range(number + HEARD_MAX)}, (), None)
    assert len(loaded(path).heard) == HEARD_MAX


def test_a_journal_that_cannot_be_kept_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    journal = loaded(tmp_path)
    journal.add(scan(1))
    journal.settle({UUID(int=1): 1}, (), 1)
    assert [record.getMessage().split(" the journal")[0] for record in caplog.records] == [
        "cannot read",
        "cannot write",
        "cannot write",
    ]
