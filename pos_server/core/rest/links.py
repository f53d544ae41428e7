"""Where an answer leads: the endpoints whose path its ids fit (OpenAPI 3.1 links), found in the endpoints themselves.

An answer of `createMerchant` has a `merchant_id`; so does the path of `getMerchant`. A page leads on by its first item,
and to itself by its cursor. Links stay within a role: another role's key is needed for the rest.
"""

from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from .endpoints import Endpoint
from .fields import NoParameters, Page

Document = dict[str, Any]


def links(endpoint: Endpoint, endpoints: Sequence[Endpoint]) -> dict[str, Document]:
    """By the names of the endpoints that the answer of `endpoint` leads to, as an OpenAPI document says it."""
    found = _found(endpoint)
    led = {
        other.name: {name: found[name] for name in other.parameters.model_fields}
        for other in endpoints
        if other is not endpoint
        and other.role is endpoint.role
        and other.parameters is not NoParameters
        and set(other.parameters.model_fields) <= set(found)
        # Not what the request itself was about only: the answer must say something.
        and any(found[name].startswith("$response") for name in other.parameters.model_fields)
    }
    described: dict[str, Document] = {
        name: {"operationId": name, "parameters": {f"path.{key}": value for key, value in parameters.items()}}
        for name, parameters in led.items()
    }
    if issubclass(endpoint.answer, Page) and endpoint.parameters is NoParameters:
        next_page = {"query.cursor": "$response.body#/next_cursor"}
        described[endpoint.name] = {"operationId": endpoint.name, "parameters": next_page}
    return described


def _found(endpoint: Endpoint) -> dict[str, str]:
    """Where the parameters of paths stand in a request and its answer: runtime expressions by name."""
    found = {name: f"$request.path.{name}" for name in endpoint.parameters.model_fields}
    answer: type[BaseModel] = endpoint.answer
    at = ""
    if issubclass(answer, Page):
        (answer,) = get_args(answer.model_fields["items"].annotation)[:1]
        at = "/items/0"
    for name, field in answer.model_fields.items():
        if not _may_be_null(field.annotation):
            found[name] = f"$response.body#{at}/{name}"
    return found


def _may_be_null(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation)
