"""Endpoints of the role `merchant`: stores and their terminals."""

from typing import Annotated, Literal

from pydantic import Field

from ..credentials.api_keys import Role
from .endpoints import Endpoint, Kind
from .fields import Body, Id, Name, Page, Paging, Parameters, Resource, SerialId, TerminalNumber, Time

_TerminalStatus = Annotated[
    Literal["active", "disabled"],
    Field(
        description="Status of the terminal; a disabled terminal cannot accept payments, cancel, refund or open shifts."
    ),
]
_ActivationCode = Annotated[
    str | None,
    Field(
        repr=False,
        description="One-time code for `POST /v1/activations`; null in a repeat after its master key was retired.",
    ),
]
_ActivationEnds = Annotated[Time, Field(description="Expiry of the activation code, RFC 3339 in UTC.")]


class StoreCreate(Body):
    """A new store."""

    name: Name


class Store(Resource):
    """A store of the merchant."""

    store_id: SerialId
    name: str


class StorePath(Parameters):
    """A store in the path."""

    store_id: SerialId


class TerminalCreate(Body):
    """A new terminal in a store."""

    store_id: SerialId
    name: Name


class TerminalChange(Body):
    """The terminal's new status, effective from its next message."""

    status: _TerminalStatus


class Terminal(Resource):
    """A terminal."""

    terminal_number: TerminalNumber
    store_id: SerialId
    name: str
    status: _TerminalStatus
    activated: Annotated[bool, Field(description="True if a device was ever activated as this terminal.")]
    shift_id: Annotated[Id | None, Field(description="Open shift; null: no shift is open.")]


class TerminalCreated(Terminal):
    """A new terminal and its activation code. This request and its repeats return the code; it is not stored."""

    activation_code: _ActivationCode
    activation_ends_at: _ActivationEnds


class TerminalActivation(Resource):
    """A new activation code of a terminal. The previous key keeps working until a device uses the code."""

    terminal_number: TerminalNumber
    activation_code: _ActivationCode
    activation_ends_at: _ActivationEnds


class TerminalPath(Parameters):
    """A terminal in the path."""

    terminal_number: TerminalNumber


class TerminalQuery(Paging):
    """Filters for terminals."""

    store_id: Annotated[SerialId | None, Field(description="Store of the terminals.")] = None


STORE_ENDPOINTS = (
    Endpoint(
        name="createStore",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/stores",
        summary="Create a store.",
        body=StoreCreate,
        response=Store,
    ),
    Endpoint(
        name="listStores",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/stores",
        summary="List all stores, oldest first.",
        query=Paging,
        response=Page[Store],
    ),
    Endpoint(
        name="getStore",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/stores/{store_id}",
        summary="Get a store.",
        parameters=StorePath,
        response=Store,
    ),
    Endpoint(
        name="createTerminal",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/terminals",
        summary="Create a terminal and its one-time activation code.",
        body=TerminalCreate,
        response=TerminalCreated,
    ),
    Endpoint(
        name="listTerminals",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/terminals",
        summary="List all terminals, or those of a store, oldest first.",
        query=TerminalQuery,
        response=Page[Terminal],
    ),
    Endpoint(
        name="getTerminal",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/terminals/{terminal_number}",
        summary="Get a terminal.",
        parameters=TerminalPath,
        response=Terminal,
    ),
    Endpoint(
        name="changeTerminal",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/terminals/{terminal_number}",
        summary="Disable or enable a terminal.",
        parameters=TerminalPath,
        body=TerminalChange,
        response=Terminal,
    ),
    Endpoint(
        name="createTerminalActivation",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/terminals/{terminal_number}/activations",
        summary="Create a new activation code. The previous key keeps working until a device uses the code.",
        parameters=TerminalPath,
        response=TerminalActivation,
    ),
)
