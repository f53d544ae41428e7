"""ApiClient: one method for each endpoint of `pos_server.core.rest`, with its models.

    async with ApiClient("http://127.0.0.1:8080", key) as api:
        merchant = await api.create_merchant(MerchantCreate(name="Kiosk", currency="EUR"))
        async for key in api.list_api_keys():
            print(key.name)

Every method raises `ApiError`. Methods that create something take an `idempotency_key`. Without one, each call makes a
key for its own retries. To create something once even across restarts of your program, store a key of your own before
the call.
"""

from .admin import AdminCalls
from .issuer import IssuerCalls
from .merchant import MerchantCalls


class ApiClient(AdminCalls, IssuerCalls, MerchantCalls):
    """All endpoints. The role of the API key decides which of them it may use."""
