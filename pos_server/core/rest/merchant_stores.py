"""A merchant's part of the API: its stores, and the terminals in them."""

from typing import Annotated, Literal

from pydantic import Field

from ..credentials.api_keys import Role
from .endpoints import Endpoint, Kind
from .fields import Body, Id, Name, Page, Paging, Parameters, Resource, SerialId, TerminalNumber, Time

_TerminalStatus = Annotated[
    Literal["active", "disabled"],
    Field(description="a disabled terminal can neither be paid, nor cancel, nor refund, nor open a shift"),
]
_ActivationCode = Annotated[
    str | None,
    Field(
        repr=False,
        description="for the device (`POST /v1/activations`), once; null if the master key it was made with is gone",
    ),
]
_ActivationEnds = Annotated[Time, Field(description="when the activation code ends")]


class StoreCreate(Body):
    """A new store."""

    name: Name


class Store(Resource):
    """A store of the merchant."""

    store_id: SerialId
    name: str


class StorePath(Parameters):
    """Which store."""

    store_id: SerialId


class TerminalCreate(Body):
    """A new terminal in a store."""

    store_id: SerialId
    name: Name


class TerminalChange(Body):
    """What a terminal is to be. It takes effect for the next message of the terminal."""

    status: _TerminalStatus


class Terminal(Resource):
    """A terminal."""

    terminal_number: TerminalNumber
    store_id: SerialId
    name: str
    status: _TerminalStatus
    activated: Annotated[bool, Field(description="whether a device has ever become this terminal")]
    shift_id: Annotated[Id | None, Field(description="the shift that is open at it; null when none is")]


class TerminalMade(Terminal):
    """A new terminal. `activation_code` is told now and to repeats of this request, and kept nowhere."""

    activation_code: _ActivationCode
    activation_ends_at: _ActivationEnds


class TerminalActivation(Resource):
    """A new activation code of a terminal. Its key of before works until a device uses the code."""

    terminal_number: TerminalNumber
    activation_code: _ActivationCode
    activation_ends_at: _ActivationEnds


class TerminalPath(Parameters):
    """Which terminal."""

    terminal_number: TerminalNumber


class TerminalQuery(Paging):
    """Which terminals."""

    store_id: Annotated[SerialId | None, Field(description="those in this store")] = None


STORE_ENDPOINTS = (
    Endpoint(
        name="createStore",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/stores",
        summary="Make a store.",
        body=StoreCreate,
        answer=Store,
    ),
    Endpoint(
        name="listStores",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/stores",
        summary="All stores, oldest first.",
        query=Paging,
        answer=Page[Store],
    ),
    Endpoint(
        name="getStore",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/stores/{store_id}",
        summary="A store.",
        parameters=StorePath,
        answer=Store,
    ),
    Endpoint(
        name="createTerminal",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/terminals",
        summary="Make a terminal, with the code that makes a device it.",
        body=TerminalCreate,
        answer=TerminalMade,
    ),
    Endpoint(
        name="listTerminals",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/terminals",
        summary="All terminals, or those of a store, oldest first.",
        query=TerminalQuery,
        answer=Page[Terminal],
    ),
    Endpoint(
        name="getTerminal",
        role=Role.MERCHANT,
        kind=Kind.READ,
        method="GET",
        path="/v1/terminals/{terminal_number}",
        summary="A terminal.",
        parameters=TerminalPath,
        answer=Terminal,
    ),
    Endpoint(
        name="changeTerminal",
        role=Role.MERCHANT,
        kind=Kind.CHANGE,
        method="PATCH",
        path="/v1/terminals/{terminal_number}",
        summary="Disable a terminal, or enable it again.",
        parameters=TerminalPath,
        body=TerminalChange,
        answer=Terminal,
    ),
    Endpoint(
        name="createTerminalActivation",
        role=Role.MERCHANT,
        kind=Kind.CREATE,
        method="POST",
        path="/v1/terminals/{terminal_number}/activations",
        summary="Make a new activation code: the key of before works until the code is used.",
        parameters=TerminalPath,
        answer=TerminalActivation,
    ),
)
