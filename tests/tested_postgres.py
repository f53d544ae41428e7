"""The Postgres that tests run on: the wheel's, or the one whose programs are in $POS_POSTGRES_BIN_DIR."""

import os
from pathlib import Path

BIN_DIR_NAME = "POS_POSTGRES_BIN_DIR"
BIN_DIR = Path(os.environ[BIN_DIR_NAME]) if os.environ.get(BIN_DIR_NAME) else None
