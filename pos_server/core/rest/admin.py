"""Endpoints of the role `admin`: merchants and API keys."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ..credentials.api_keys import Role
from .endpoints import Endpoint, Kind
from .fields import Body, Currency, Minor, Name, Page, Paging, Parameters, Resource, SerialId, Time

FEE_BPS_MAX = 10_000
OVERLAP_S_MAX = 30 * 86_400
_FeeBps = Annotated[
    int, Field(ge=0, le=FEE_BPS_MAX, description="Variable fee of a sale, in basis points (hundredths of a percent).")
]
_FeeFixed = Annotated[Minor, Field(description="Fixed fee of a sale, in minor units of the merchant's currency.")]
_TimeZone = Annotated[
    str,
    StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"),
    Field(description="Time zone of the business day, an IANA name such as Europe/Berlin."),
]
_CutOff = Annotated[
    str,
    StringConstraints(pattern=r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"),
    Field(description="Local time at which the business day ends, such as 04:00."),
]
_Status = Annotated[
    Literal["active", "inactive"],
    Field(description="Status of the merchant; an inactive merchant accepts no payments."),
]
_Overlap = Annotated[
    int, Field(ge=0, le=OVERLAP_S_MAX, description="Seconds for which the previous key remains valid.")
]


class MerchantCreate(Body):
    """A new merchant. The currency cannot be changed later."""

    name: Name
    currency: Currency
    fee_bps: _FeeBps = 0
    fee_fixed_minor: _FeeFixed = 0
    time_zone: _TimeZone = "UTC"
    cut_off: _CutOff = "00:00"


class MerchantChange(Body):
    """Fields to change. Omitted fields and null keep their values.

    Fees apply from the next sale, the business day from the next settlement.
    """

    status: _Status | None = None
    fee_bps: _FeeBps | None = None
    fee_fixed_minor: _FeeFixed | None = None
    time_zone: _TimeZone | None = None
    cut_off: _CutOff | None = None


class Merchant(Resource):
    """A merchant and its terms."""

    merchant_id: Annotated[SerialId, Field(description="Id of the merchant at this server.")]
    name: str
    currency: Currency
    status: _Status
    fee_bps: _FeeBps
    fee_fixed_minor: _FeeFixed
    time_zone: str
    cut_off: _CutOff


class MerchantPath(Parameters):
    """A merchant in the path."""

    merchant_id: Annotated[SerialId, Field(description="Id of the merchant.")]


class ApiKeyCreate(Body):
    """A new API key. `merchant_id` is required for the role `merchant` and not allowed for other roles."""

    role: Role = Field(strict=False)
    merchant_id: Annotated[
        SerialId | None, Field(description="Merchant that owns the key; only for the role `merchant`.")
    ] = None
    name: Annotated[Name, Field(description="Purpose of the key, for people.")]


class ApiKeyRotate(Body):
    """Overlap between an API key and its replacement."""

    overlap_s: _Overlap = 86_400


class ApiKey(Resource):
    """An API key, without its secret."""

    key_id: SerialId
    role: Role
    merchant_id: Annotated[
        SerialId | None, Field(description="Merchant that owns the key; null unless the role is `merchant`.")
    ]
    name: str
    created_at: Time
    last_used_at: Annotated[Time | None, Field(description="Time of the last use, to the minute; null: never used.")]
    ends_at: Annotated[Time | None, Field(description="End of validity, past or future; null: unlimited.")]


class ApiKeyCreated(ApiKey):
    """A new API key with its secret. This request and its repeats return `key`; the server does not store it."""

    key: Annotated[
        str | None,
        Field(repr=False, description="The secret; null in a repeat after its master key was retired."),
    ]


class ApiKeyPath(Parameters):
    """An API key in the path."""

    key_id: Annotated[SerialId, Field(description="Id of the API key.")]


ADMIN_ENDPOINTS = (
    Endpoint(
        name="createMerchant",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/merchants",
        summary="Create a merchant.",
        body=MerchantCreate,
        response=Merchant,
    ),
    Endpoint(
        name="listMerchants",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/merchants",
        summary="List all merchants, oldest first.",
        query=Paging,
        response=Page[Merchant],
    ),
    Endpoint(
        name="getMerchant",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/merchants/{merchant_id}",
        summary="Get a merchant and its terms.",
        parameters=MerchantPath,
        response=Merchant,
    ),
    Endpoint(
        name="changeMerchant",
        role=Role.ADMIN,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/merchants/{merchant_id}",
        summary="Change a merchant's terms or status.",
        parameters=MerchantPath,
        body=MerchantChange,
        response=Merchant,
    ),
    Endpoint(
        name="createApiKey",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/api-keys",
        summary="Create an API key.",
        body=ApiKeyCreate,
        response=ApiKeyCreated,
    ),
    Endpoint(
        name="listApiKeys",
        role=Role.ADMIN,
        kind=Kind.READ,
        method="GET",
        path="/v1/api-keys",
        summary="List all API keys, oldest first.",
        query=Paging,
        response=Page[ApiKey],
    ),
    Endpoint(
        name="rotateApiKey",
        role=Role.ADMIN,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/api-keys/{key_id}/rotations",
        summary="Replace an API key. The previous key remains valid during an overlap.",
        parameters=ApiKeyPath,
        body=ApiKeyRotate,
        response=ApiKeyCreated,
    ),
    Endpoint(
        name="revokeApiKey",
        role=Role.ADMIN,
        kind=Kind.CHANGE,
        method="DELETE",
        path="/v1/api-keys/{key_id}",
        summary="Revoke an API key immediately.",
        parameters=ApiKeyPath,
        response=ApiKey,
    ),
)
