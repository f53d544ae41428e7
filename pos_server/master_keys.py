"""The master keys: from POS_MASTER_KEYS, or from a file that a server with an embedded Postgres creates once."""

import os
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from .core.credentials.device_keys import Keyring, derive_device_key
from .settings import Settings, SettingsError, new_master_key, parse_master_keys

FILE_NAME = "master-keys"


def keyring_for(settings: Settings, data_dir: Path | None) -> Keyring:
    """Return the master keys.

    `data_dir` is None with an external database. Several servers can share it, so POS_MASTER_KEYS must be set then.
    Raises SettingsError.
    """
    if settings.master_keys is not None:
        keyring = parse_master_keys(settings.master_keys.get_secret_value())
    elif data_dir is not None:
        keyring = parse_master_keys(_read_or_create(data_dir / FILE_NAME))
    else:
        raise SettingsError(
            "POS_MASTER_KEYS is not set, and every server of a database needs the same keys. "
            "Create a key with `pos-server master-key` and set the variable on every server"
        )
    # Cached, because a device's key is needed at each connect and for each of its codes.
    return replace(keyring, derive=lru_cache(settings.device_keys_cached_max)(derive_device_key))


def _read_or_create(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    # Linked only when complete, and never over the file of another server: losing that would lock out every device.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_master_key("k1") + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)
    return path.read_text("ascii").strip()
