"""Every operation of the REST API, once."""

from .admin import ADMIN_OPERATIONS
from .issuer import ISSUER_OPERATIONS
from .merchant_payments import PAYMENT_OPERATIONS
from .merchant_reports import BOOK_OPERATIONS
from .merchant_stores import PLACE_OPERATIONS

OPERATIONS = (*ADMIN_OPERATIONS, *ISSUER_OPERATIONS, *PLACE_OPERATIONS, *PAYMENT_OPERATIONS, *BOOK_OPERATIONS)
