"""Every operation of the REST API, once."""

from .admin import ADMIN_OPERATIONS

OPERATIONS = (*ADMIN_OPERATIONS,)
