"""Commands in printed texts, for different contents of PATH."""

import os
import sys
from pathlib import Path

import pytest

from pos_server.programs import pasteable, program


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with our programs, one of which is running. PATH does not include it."""
    directory = tmp_path / "bin"
    executable(directory / "pos-server")
    executable(directory / "pos-wallet")
    monkeypatch.setattr(sys, "argv", [str(directory / "pos-server"), "demo"])
    monkeypatch.setenv("PATH", os.defpath)
    return directory


def executable(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o755)


def test_a_program_outside_path_has_its_full_path(place: Path) -> None:
    assert program("pos-wallet") == f"{place}/pos-wallet"


def test_a_program_started_by_a_relative_path_has_its_full_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent)
    monkeypatch.setattr(sys, "argv", ["bin/pos-server"])
    assert program("pos-wallet") == f"{place}/pos-wallet"


def test_a_program_on_path_has_its_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    assert program("pos-wallet") == "pos-wallet"


def test_a_linked_program_on_path_has_its_name(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for name in ("pos-server", "pos-wallet"):
        (links / name).symlink_to(place / name)
    monkeypatch.setattr(sys, "argv", [str(links / "pos-server")])
    monkeypatch.setenv("PATH", str(links))
    assert program("pos-wallet") == "pos-wallet"


def test_a_program_of_another_installation_on_path_is_not_used(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "other" / "pos-wallet")
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert program("pos-wallet") == f"{place}/pos-wallet"


def test_a_path_with_a_space_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "my bin" / "pos-server")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "my bin" / "pos-server")])
    assert program("pos-server") == f"'{tmp_path}/my bin/pos-server'"


def test_without_our_programs_in_the_directory_the_name_remains(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert program("pos-wallet") == "pos-wallet"


def test_commands_in_backticks_can_be_pasted(place: Path) -> None:
    text = "pos-server: no ledger yet: run `pos-server migrate` first, then `pos-wallet show`"
    assert pasteable(text) == (
        f"pos-server: no ledger yet: run `{place}/pos-server migrate` first, then `{place}/pos-wallet show`"
    )
