"""What a wallet must not forget over a restart: the last code it showed, the server's clock, and what it has heard."""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pos_server.core.credentials import payment_code

from ..device.files import locked_folder, write_private
from ..errors import CredentialsError

log = logging.getLogger("pos_client")


class WalletState(BaseModel):
    """`step` and `seq` of the last code, server time less local time, and what to resume from (resume.py)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: int = -1
    seq: int = Field(default=0, ge=0, le=payment_code.SEQ_MAX)
    clock_offset_ms: int = 0
    since_ms: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None


class WalletStateFile:
    """The state in one private file, or in memory only. Each change reads the file anew: other processes write too."""

    def __init__(self, path: Path | None) -> None:
        """Raises CredentialsError when the file cannot be read."""
        self._path = path
        self._state = WalletState()
        self.load()

    @property
    def state(self) -> WalletState:
        """The state as of the last read or write."""
        return self._state

    def load(self) -> WalletState:
        """The state as of now. A damaged file is started anew. Raises CredentialsError."""
        if self._path is not None:
            try:
                self._state = WalletState.model_validate_json(self._path.read_bytes())
            except FileNotFoundError:
                pass
            except ValidationError:
                log.warning("%s is damaged and is started anew", self._path)
            except OSError as error:
                raise CredentialsError(f"cannot read the wallet's state in {self._path}: {error.strerror}") from error
        return self._state

    def change(self, **fields: int) -> None:
        """Write these fields of WalletState. Raises CredentialsError."""
        if self._path is None:
            self._state = self._state.model_copy(update=fields)
            return
        try:
            with locked_folder(self._path.parent):
                self._state = self.load().model_copy(update=fields)
                write_private(self._path, self._state.model_dump_json().encode())
        except OSError as error:
            raise CredentialsError(f"cannot write the wallet's state to {self._path}: {error.strerror}") from error
