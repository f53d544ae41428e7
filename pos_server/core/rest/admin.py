"""The operator's part of the API: merchants and API keys."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ..credentials.api_keys import Role
from .endpoints import Endpoint, Kind
from .fields import Body, Currency, Minor, Name, Page, Paging, Parameters, Resource, SerialId, Time

FEE_BPS_MAX = 10_000
OVERLAP_S_MAX = 30 * 86_400
_FeeBps = Annotated[int, Field(ge=0, le=FEE_BPS_MAX, description="of a sale, in hundredths of a percent")]
_FeeFixed = Annotated[Minor, Field(description="of a sale, in minor units of the merchant's currency")]
_TimeZone = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"),
    Field(description="of its business day, an IANA name such as Europe/Berlin"),
]
_CutOff = Annotated[
    str,
    StringConstraints(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"),
    Field(description="when its business day ends, such as 04:00"),
]
_Status = Annotated[Literal["active", "inactive"], Field(description="an inactive merchant cannot be paid")]
_Overlap = Annotated[int, Field(ge=0, le=OVERLAP_S_MAX, description="seconds that the former key still works")]


class MerchantCreate(Body):
    """A new merchant. Its currency never changes."""

    name: Name
    currency: Currency
    fee_bps: _FeeBps = 0
    fee_fixed_minor: _FeeFixed = 0
    time_zone: _TimeZone = "UTC"
    cut_off: _CutOff = "00:00"


class MerchantChange(Body):
    """What is to be another: what is left out stays. Fees hold for the next sale, the day for the next settlement."""

    status: _Status | None = None
    fee_bps: _FeeBps | None = None
    fee_fixed_minor: _FeeFixed | None = None
    time_zone: _TimeZone | None = None
    cut_off: _CutOff | None = None


class Merchant(Resource):
    """A merchant and its terms."""

    merchant_id: Annotated[SerialId, Field(description="its number at this server")]
    name: str
    currency: Currency
    status: _Status
    fee_bps: _FeeBps
    fee_fixed_minor: _FeeFixed
    time_zone: str
    cut_off: _CutOff


class MerchantPath(Parameters):
    """Which merchant."""

    merchant_id: Annotated[SerialId, Field(description="which merchant")]


class ApiKeyCreate(Body):
    """A new key. A merchant's key needs `merchant_id`, no other has one."""

    role: Role = Field(strict=False)
    merchant_id: Annotated[SerialId | None, Field(description="whose key, of the role `merchant`")] = None
    name: Annotated[Name, Field(description="what the key is for")]


class ApiKeyRotate(Body):
    """A key that takes the place of another."""

    overlap_s: _Overlap = 86_400


class ApiKeyShown(Resource):
    """A key, without the key itself."""

    key_id: SerialId
    role: Role
    merchant_id: Annotated[SerialId | None, Field(description="whose key it is, of the role `merchant`")]
    name: str
    created_at: Time
    last_used_at: Annotated[Time | None, Field(description="to the minute; null when it never was")]
    ends_at: Annotated[Time | None, Field(description="when it ends or has ended; null for one that does not end")]


class ApiKeyMade(ApiKeyShown):
    """A new key. `key` is told now and to repeats of this request, and kept nowhere."""

    key: Annotated[str | None, Field(repr=False, description="null if the master key it was made with is gone")]


class ApiKeyPath(Parameters):
    """Which key."""

    key_id: Annotated[SerialId, Field(description="which key")]


ADMIN_ENDPOINTS = (
    Endpoint(
        name="createMerchant",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/merchants",
        summary="Make a merchant.",
        body=MerchantCreate,
        answer=Merchant,
    ),
    Endpoint(
        name="listMerchants",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/merchants",
        summary="All merchants, oldest first.",
        query=Paging,
        answer=Page[Merchant],
    ),
    Endpoint(
        name="getMerchant",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/merchants/{merchant_id}",
        summary="A merchant and its terms.",
        parameters=MerchantPath,
        answer=Merchant,
    ),
    Endpoint(
        name="changeMerchant",
        role=Role.ADMIN,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/merchants/{merchant_id}",
        summary="Change a merchant's terms, or whether it can be paid.",
        parameters=MerchantPath,
        body=MerchantChange,
        answer=Merchant,
    ),
    Endpoint(
        name="createApiKey",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/api-keys",
        summary="Make an API key.",
        body=ApiKeyCreate,
        answer=ApiKeyMade,
    ),
    Endpoint(
        name="listApiKeys",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/api-keys",
        summary="All API keys, oldest first.",
        query=Paging,
        answer=Page[ApiKeyShown],
    ),
    Endpoint(
        name="rotateApiKey",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/api-keys/{key_id}/rotations",
        summary="Make a key that takes the place of another, which ends after an overlap.",
        parameters=ApiKeyPath,
        body=ApiKeyRotate,
        answer=ApiKeyMade,
    ),
    Endpoint(
        name="revokeApiKey",
        role=Role.ADMIN,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/api-keys/{key_id}",
        summary="End a key now.",
        parameters=ApiKeyPath,
        answer=ApiKeyShown,
    ),
)
