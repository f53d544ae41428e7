"""The REST API as methods: one for each endpoint of `pos_server.core.rest`, in its models.

    async with ApiClient("http://127.0.0.1:8080", key) as api:
        merchant = await api.create_merchant(MerchantCreate(name="Kiosk", currency="EUR"))
        async for key in api.list_api_keys():
            print(key.name)

Every method raises `ApiError`. What makes something takes an `idempotency_key` of yours, kept before the request, if it
must be made once over restarts of your program too; else it makes one for the retries within the call.
"""

from .admin import AdminCalls
from .issuer import IssuerCalls
from .merchant import MerchantCalls


class ApiClient(AdminCalls, IssuerCalls, MerchantCalls):
    """All endpoints. Which of them a key may use is its role's."""
