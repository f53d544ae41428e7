"""A wallet's state across restarts: the last code shown, the clock offset, and the time to resume notices from."""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pos_server.core.credentials import payment_code

from ..device.files import locked_folder, write_private
from ..errors import CredentialsError

log = logging.getLogger("pos_client")


class WalletState(BaseModel):
    """`step` and `seq` of the last code, server time minus local time, and the resume time (device/resume.py)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int = -1
    seq: int = Field(default=0, ge=0, le=payment_code.SEQ_MAX)
    clock_offset_ms: int = 0
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None


class WalletStateFile:
    """The state in a private file, or in memory only. Each change rereads the file, which other processes write too."""

    def __init__(self, path: Path | None) -> None:
        """Raise CredentialsError if the file cannot be read."""
        self._path = path
        self._state = WalletState()
        self.load()

    @property
    def state(self) -> WalletState:
        """The state at the last read or write."""
        return self._state

    def load(self) -> WalletState:
        """Read and return the current state. A damaged file counts as empty. Raises CredentialsError."""
        if self._path is not None:
            try:
                self._state = WalletState.model_validate_json(self._path.read_bytes())
            except FileNotFoundError:
                pass
            except ValidationError:
                log.warning("the wallet's state in %s is damaged: starting with an empty state", self._path)
            except OSError as error:
                raise CredentialsError(f"cannot read the wallet's state in {self._path}: {error.strerror}") from error
        return self._state

    def change(self, **fields: int) -> None:
        """Update these fields of WalletState in the file. Raises CredentialsError."""
        if self._path is None:
            self._state = self._state.model_copy(update=fields)
            return
        try:
            with locked_folder(self._path.parent):
                self._state = self.load().model_copy(update=fields)
                write_private(self._path, self._state.model_dump_json().encode())
        except OSError as error:
            raise CredentialsError(f"cannot write the wallet's state to {self._path}: {error.strerror}") from error
