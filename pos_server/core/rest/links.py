"""Where an answer leads: the operations whose path its ids fit (OpenAPI 3.1 links), found in the operations themselves.

An answer of `createMerchant` has a `merchant_id`; so does the path of `getMerchant`. A page leads on by its first item,
and to itself by its cursor. Links stay within a role: another role's key is needed for the rest.
"""

from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from .endpoints import RestOperation
from .fields import NoParameters, Page

Document = dict[str, Any]


def links(operation: RestOperation, operations: Sequence[RestOperation]) -> dict[str, Document]:
    """By the names of the operations that the answer of `operation` leads to, as an OpenAPI document says it."""
    found = _found(operation)
    led = {
        other.name: {name: found[name] for name in other.parameters.model_fields}
        for other in operations
        if other is not operation
        and other.role is operation.role
        and other.parameters is not NoParameters
        and set(other.parameters.model_fields) <= set(found)
        # Not what the request itself was about only: the answer must say something.
        and any(found[name].startswith("$response") for name in other.parameters.model_fields)
    }
    described: dict[str, Document] = {
        name: {"operationId": name, "parameters": {f"path.{key}": value for key, value in parameters.items()}}
        for name, parameters in led.items()
    }
    if issubclass(operation.answer, Page) and operation.parameters is NoParameters:
        next_page = {"query.cursor": "$response.body#/next_cursor"}
        described[operation.name] = {"operationId": operation.name, "parameters": next_page}
    return described


def _found(operation: RestOperation) -> dict[str, str]:
    """Where the parameters of paths stand in a request and its answer: runtime expressions by name."""
    found = {name: f"$request.path.{name}" for name in operation.parameters.model_fields}
    answer: type[BaseModel] = operation.answer
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
