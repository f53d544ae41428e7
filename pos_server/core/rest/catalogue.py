"""All endpoints of the REST API."""

from .admin import ADMIN_ENDPOINTS
from .issuer import ISSUER_ENDPOINTS
from .merchant_payments import PAYMENT_ENDPOINTS
from .merchant_reports import REPORT_ENDPOINTS
from .merchant_stores import STORE_ENDPOINTS

ENDPOINTS = (*ADMIN_ENDPOINTS, *ISSUER_ENDPOINTS, *STORE_ENDPOINTS, *PAYMENT_ENDPOINTS, *REPORT_ENDPOINTS)
