import json
from pathlib import Path

import platformdirs
import pytest

from pos_client.device.credentials import Credentials, device_path, parse_server_url
from pos_client.errors import CredentialsError
from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.fake_server import DEVICE_KEY, credentials


def test_credentials_are_saved_to_a_private_file_and_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "till.json"
    original = credentials(DeviceKind.TERMINAL)
    original.save(path)
    assert Credentials.load(path, DeviceKind.TERMINAL) == original
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["device_key"] == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert [file.name for file in path.parent.iterdir()] == ["till.json"]


def test_the_repr_does_not_contain_the_key() -> None:
    text = repr(credentials(DeviceKind.WALLET))
    assert "number=1000000001" in text
    assert "device_key" not in text
    assert DEVICE_KEY.hex() not in text


def test_the_error_for_a_missing_file_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="run `pos-wallet activate --server URL CODE` first"):
        Credentials.load(tmp_path / "none.json", DeviceKind.WALLET)


def test_a_folder_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=f"cannot read the credentials in {tmp_path}"):
        Credentials.load(tmp_path, DeviceKind.WALLET)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"device_key": "secret"}'])
def test_a_damaged_file_is_an_error_without_its_content(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "till.json"
    path.write_bytes(content)
    with pytest.raises(CredentialsError, match="is not a credentials file") as error:
        Credentials.load(path, DeviceKind.TERMINAL)
    assert "secret" not in str(error.value)


def test_a_key_of_the_wrong_length_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "till.json"
    credentials(DeviceKind.TERMINAL).save(path)
    path.write_text(path.read_text().replace("AAECAwQF", ""))
    with pytest.raises(CredentialsError, match="is not a credentials file"):
        Credentials.load(path, DeviceKind.TERMINAL)


def test_the_wrong_kind_of_device_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "till.json"
    credentials(DeviceKind.TERMINAL).save(path)
    with pytest.raises(CredentialsError, match="belongs to a terminal, not to a wallet"):
        Credentials.load(path, DeviceKind.WALLET)


def test_an_unwritable_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CredentialsError, match="cannot write the credentials"):
        credentials(DeviceKind.TERMINAL).save(tmp_path / "file" / "till.json")


def test_a_device_is_a_name_in_the_data_folder_or_a_path() -> None:
    assert device_path("till-2") == platformdirs.user_data_path("pos-client") / "till-2.json"
    assert device_path("here/till.json") == Path("here/till.json")
    assert device_path("till.json") == Path("till.json")


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (" https://pay.example.com/ ", "https://pay.example.com"),
        ("https://example.com/pay/", "https://example.com/pay"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_typed_server_urls_are_normalized(typed: str, url: str) -> None:
    assert parse_server_url(typed) == url


@pytest.mark.parametrize(
    "typed", ["", "pay.example.com", "ws://x", "http://", "http://x:99999", "http://u:p@x", "http://x?a", "http://x#a"]
)
def test_an_invalid_server_url_is_a_value_error(typed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_server_url(typed)


@pytest.mark.parametrize(
    ("server", "url"),
    [("http://a:1", "ws://a:1/v1/wallet"), ("https://a/pay", "wss://a/pay/v1/wallet")],
)
def test_the_websocket_url_follows_the_server_url(server: str, url: str) -> None:
    assert credentials(DeviceKind.WALLET, server).websocket_url == url
