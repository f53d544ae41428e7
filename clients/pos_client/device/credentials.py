"""A device's identity and key, as issued by its activation, in one private JSON file per device."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pos_server.core.credentials.device_keys import DEVICE_KEY_BYTES, SLOT_MAX, DeviceKind
from pos_server.core.money import Currency

from ..errors import CredentialsError
from .files import write_private


class Credentials(BaseModel):
    """One device's identity and key. `server` is the server's base URL, without a trailing slash."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    server: str
    kind: DeviceKind
    number: Annotated[int, Field(ge=1, le=2**53 - 1)]
    slot: Annotated[int, Field(ge=0, le=SLOT_MAX)]
    kid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    device_key: Annotated[bytes, Field(min_length=DEVICE_KEY_BYTES, max_length=DEVICE_KEY_BYTES, repr=False)]
    currency: Currency
    name: str

    @property
    def websocket_url(self) -> str:
        """The URL to connect to: `ws://…/v1/terminal` or `/v1/wallet`, `wss://` for an `https://` server."""
        return f"ws{self.server.removeprefix('http')}/v1/{self.kind.value}"

    def save(self, path: Path) -> None:
        """Write the credentials to `path` atomically, mode 0600. Raises CredentialsError."""
        try:
            write_private(path, self.model_dump_json(indent=2).encode())
        except OSError as error:
            raise CredentialsError(f"cannot write the credentials to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, kind: DeviceKind) -> "Credentials":
        """Read the credentials of a device of this kind. Raises CredentialsError."""
        try:
            credentials = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise CredentialsError(
                f"there are no credentials in {path}: run `pos-{kind.value} activate --server URL CODE` first"
            ) from None
        except OSError as error:
            raise CredentialsError(f"cannot read the credentials in {path}: {error.strerror}") from error
        except ValidationError:
            raise CredentialsError(f"{path} is not a credentials file: run `pos-{kind.value} activate`") from None
        if credentials.kind is not kind:
            raise CredentialsError(f"{path} belongs to a {credentials.kind.value}, not to a {kind.value}")
        return credentials


def device_path(device: str) -> Path:
    """Return the credentials file of `--device NAME|PATH`. A bare name is a file in the user's data folder."""
    path = Path(device)
    if len(path.parts) > 1 or path.suffix == ".json":
        return path
    return platformdirs.user_data_path("pos-client") / f"{device}.json"


def journal_path(device: str) -> Path:
    """Return the path of a till's journal, next to its credentials."""
    return device_path(device).with_suffix(".journal")


def parse_server_url(text: str) -> str:
    """Return a typed base URL without its trailing slash. Raises ValueError."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("the server must be an http or https URL such as https://pay.example.com")
    _ = parts.port  # raises ValueError for an invalid port
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
