"""Every operation of the REST API, once."""

from .admin import ADMIN_OPERATIONS
from .issuer import ISSUER_OPERATIONS

OPERATIONS = (*ADMIN_OPERATIONS, *ISSUER_OPERATIONS)
