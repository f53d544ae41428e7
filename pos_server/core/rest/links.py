"""Links from a response to other endpoints (OpenAPI 3.1), derived from the endpoints.

A response links to an endpoint if it contains the parameters of that endpoint's path: a response of `createMerchant`
has a `merchant_id`, and so does the path of `getMerchant`. A page links through its first item, and to its next page
through the cursor. Links stay within a role, because other roles need another API key.
"""

from collections.abc import Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from .endpoints import Endpoint
from .fields import NoParameters, Page

Document = dict[str, Any]


def links(endpoint: Endpoint, endpoints: Sequence[Endpoint]) -> dict[str, Document]:
    """Return the OpenAPI link objects of an endpoint's successful responses, by the name of the linked endpoint."""
    expressions = _runtime_expressions(endpoint)
    link_objects: dict[str, Document] = {}
    for other in endpoints:
        names = set(other.parameters.model_fields)
        # A link needs a value from the response; one with only the request's own parameters is useless.
        if (
            other is not endpoint
            and other.role is endpoint.role
            and names <= set(expressions)
            and any(expressions[name].startswith("$response") for name in names)
        ):
            parameters = {f"path.{name}": expressions[name] for name in other.parameters.model_fields}
            link_objects[other.name] = {"operationId": other.name, "parameters": parameters}
    if issubclass(endpoint.response, Page) and endpoint.parameters is NoParameters:
        next_page = {"query.cursor": "$response.body#/next_cursor"}
        link_objects[endpoint.name] = {"operationId": endpoint.name, "parameters": next_page}
    return link_objects


def _runtime_expressions(endpoint: Endpoint) -> dict[str, str]:
    """Return the OpenAPI runtime expressions of an endpoint's path parameters and response fields, by name."""
    expressions = {name: f"$request.path.{name}" for name in endpoint.parameters.model_fields}
    model: type[BaseModel] = endpoint.response
    pointer = ""
    if issubclass(model, Page):
        (model,) = get_args(model.model_fields["items"].annotation)[:1]
        pointer = "/items/0"
    for name, field in model.model_fields.items():
        if not _is_nullable(field.annotation):
            expressions[name] = f"$response.body#{pointer}/{name}"
    return expressions


def _is_nullable(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and type(None) in get_args(annotation)
