import logging
from pathlib import Path
from uuid import UUID

import pytest

from pos_client.terminal.journal import FILE_BYTES_MAX, OPEN_MAX, VERSIONS_MAX, Journal, JournaledScan

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


def test_added_entries_persist_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "till.journal"
    written(path, scan(1), scan(2))
    assert list(loaded(path).entries.values()) == [scan(1), scan(2)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert CODE not in repr(scan(1))


def test_a_settled_scan_is_removed_and_its_version_stays(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2), scan(3)).settle({UUID(int=1): 2, UUID(int=9): 1}, {scan(2).key}, 5_000)
    journal = loaded(path)
    assert list(journal.entries) == [scan(3).key]
    assert (journal.versions, journal.since_ms) == ({UUID(int=1): 2, UUID(int=9): 1}, 5_000)
    journal.settle({UUID(int=3): 1}, (), 4_000)
    assert CODE not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert loaded(path).since_ms == 5_000


@pytest.mark.parametrize("torn_bytes", [1, 2, 30, 200])
def test_a_torn_last_line_affects_no_other_line(torn_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2))
    path.write_bytes(path.read_bytes()[:-torn_bytes])
    assert scan(1).key in loaded(path).entries
    written(path, scan(3))
    assert {scan(1).key, scan(3).key} <= set(loaded(path).entries)


@pytest.mark.parametrize("damage", [b"\x00", b"9", b"\n", b"\xff"])
def test_a_damaged_line_is_skipped_and_logged_without_its_content(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1), scan(2), scan(3))
    content = path.read_bytes()
    at = content.index(b"1250", content.index(b"order-2"))
    path.write_bytes(content[:at] + damage + content[at + 1 :])
    assert list(loaded(path).entries) == [scan(1).key, scan(3).key]
    assert "damaged lines of the journal" in caplog.text
    assert CODE not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff" * 5_000, b"00000000 {}"])
def test_a_file_that_is_not_a_journal_stops_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    path.write_bytes(content)
    journal = loaded(path)
    assert journal.entries == {}
    journal.add(scan(1))
    assert list(loaded(path).entries) == [scan(1).key]


def test_entries_of_another_till_are_not_loaded_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    written(path, scan(1, device="8 at http://pos.test"), scan(2))
    loaded(path).settle({UUID(int=2): 1}, (), 5_000)
    other = loaded(path, "8 at http://pos.test")
    assert list(other.entries) == [scan(1).key]
    assert (other.versions, other.since_ms) == ({}, None)


def test_two_processes_keep_each_others_entries(tmp_path: Path) -> None:
    path = tmp_path / "till.journal"
    first = written(path, scan(1))
    second = loaded(path)
    second.add(scan(2))
    first.settle({UUID(int=1): 1}, (), None)
    second.add(scan(3))
    assert list(loaded(path).entries) == [scan(2).key, scan(3).key]


def test_the_file_size_is_bounded_and_the_newest_scans_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "till.journal"
    journal = written(path)
    number = 0
    while "is full: dropped" not in caplog.text:
        number += 1
        journal.add(scan(number))
        assert path.stat().st_size <= FILE_BYTES_MAX + 1_000
    assert list(loaded(path).entries) == [scan(each).key for each in range(number - OPEN_MAX + 1, number + 1)]
    journal.settle({UUID(int=each): 1 for each in range(number + VERSIONS_MAX)}, (), None)
    assert len(loaded(path).versions) == VERSIONS_MAX


def test_an_unwritable_journal_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    journal = loaded(tmp_path)
    journal.add(scan(1))
    journal.settle({UUID(int=1): 1}, (), 1)
    assert [record.getMessage().split(" the journal")[0] for record in caplog.records] == [
        "cannot read",
        "cannot write",
        "cannot write",
    ]
