"""Methods of the role `admin`: merchants and API keys."""

from collections.abc import AsyncIterator

from pos_server.core.rest.admin import (
    ADMIN_ENDPOINTS,
    ApiKey,
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyPath,
    ApiKeyRotate,
    Merchant,
    MerchantChange,
    MerchantCreate,
    MerchantPath,
)
from pos_server.core.rest.fields import Page

from .calls import ApiCalls

_OF = {endpoint.name: endpoint for endpoint in ADMIN_ENDPOINTS}


class AdminCalls(ApiCalls):
    """Endpoints for API keys of the role `admin`."""

    async def create_merchant(self, body: MerchantCreate, *, idempotency_key: str | None = None) -> Merchant:
        """Create a merchant."""
        return await self.call(_OF["createMerchant"], Merchant, body=body, idempotency_key=idempotency_key)

    def list_merchants(self) -> AsyncIterator[Merchant]:
        """Iterate over all merchants, oldest first."""
        return self.items(_OF["listMerchants"], Page[Merchant])

    async def get_merchant(self, merchant_id: int) -> Merchant:
        """Return a merchant and its terms."""
        return await self.call(_OF["getMerchant"], Merchant, MerchantPath(merchant_id=merchant_id))

    async def change_merchant(self, merchant_id: int, body: MerchantChange) -> Merchant:
        """Change a merchant's terms or status."""
        return await self.call(_OF["changeMerchant"], Merchant, MerchantPath(merchant_id=merchant_id), body=body)

    async def create_api_key(self, body: ApiKeyCreate, *, idempotency_key: str | None = None) -> ApiKeyCreated:
        """Create an API key."""
        return await self.call(_OF["createApiKey"], ApiKeyCreated, body=body, idempotency_key=idempotency_key)

    def list_api_keys(self) -> AsyncIterator[ApiKey]:
        """Iterate over all API keys, oldest first."""
        return self.items(_OF["listApiKeys"], Page[ApiKey])

    async def rotate_api_key(
        self, key_id: int, body: ApiKeyRotate, *, idempotency_key: str | None = None
    ) -> ApiKeyCreated:
        """Create a key that replaces another one, which expires after an overlap."""
        path = ApiKeyPath(key_id=key_id)
        return await self.call(_OF["rotateApiKey"], ApiKeyCreated, path, body=body, idempotency_key=idempotency_key)

    async def revoke_api_key(self, key_id: int) -> ApiKey:
        """Revoke a key immediately."""
        return await self.call(_OF["revokeApiKey"], ApiKey, ApiKeyPath(key_id=key_id))
