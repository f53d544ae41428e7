"""The REST API for tools and people: an OpenAPI 3.1 document, made from the endpoints that the server serves.

https://spec.openapis.org/oas/v3.1.1. Schemas are JSON Schema 2020-12, as pydantic makes them.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from ..credentials.api_keys import Role
from ..texts import LANGUAGES
from .endpoints import IDEMPOTENCY_KEY_CHARS_MAX, Endpoint, Kind
from .fields import Parameters
from .links import links
from .problems import ProblemDetails

OPENAPI_VERSION = "3.1.1"
Document = dict[str, Any]

_DESCRIPTION = """\
Back offices, merchants' own servers and scripts speak REST; tills and wallets speak WebSockets (`/asyncapi.json`).

Send `Authorization: Bearer KEY`. A key has one role. What belongs to another merchant is 404, as if it were not there.

Amounts are integers in minor units, times RFC 3339 in UTC. Unknown fields in a body are refused; ignore those that you
do not know in an answer.

Every POST that makes something needs an `Idempotency-Key`, a new one for each thing. Send the same again until it is
answered: the first answer comes with 201, a repeat with 200 and the same, or with what a payment is by then. The same
key with another body is 422; one that is still being worked on is 409.

What goes wrong is a problem (RFC 9457) with a stable `code`, and a `pointer` to the field at fault.
"""
_HEADERS: Document = {
    "X-Request-Id": {"description": "names this request in the server's log", "schema": {"type": "string"}}
}
_RETRY_AFTER = {"description": "seconds to wait before the next try", "schema": {"type": "integer", "minimum": 0}}
_MAY_RETRY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.CONFLICT}


def openapi_document(version: str, endpoints: Sequence[Endpoint]) -> Document:
    """The document of a server of this `version`, ready for JSON. The same input gives the same output, in order."""
    models: list[tuple[type[BaseModel], Any]] = [(ProblemDetails, "serialization")]
    for endpoint in endpoints:
        models.append((endpoint.answer, "serialization"))
        models += [(parameters, "validation") for parameters in (endpoint.parameters, endpoint.query)]
        if endpoint.body is not None:
            models.append((endpoint.body, "validation"))
    references, definitions = models_json_schema(
        list(dict.fromkeys(models)), ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    schemas = definitions["$defs"]
    # Parameters stand one by one with their endpoints, not as bodies.
    parameters = {
        model: schemas.pop(reference["$ref"].rpartition("/")[2])
        for (model, _), reference in references.items()
        if issubclass(model, Parameters)
    }
    paths: dict[str, Document] = {}
    for endpoint in endpoints:
        described = _operation(endpoint, references, parameters)
        found = links(endpoint, endpoints)
        for status in endpoint.statuses if found else ():
            described["responses"][str(status.value)]["links"] = found
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = described
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "pos-server",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": role.value, "description": _ROLES[role]} for role in Role],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {role.value: {"type": "http", "scheme": "bearer"} for role in Role},
        },
    }


_ROLES = {
    Role.ADMIN: "The operator: merchants and API keys.",
    Role.ISSUER: "Whoever issues wallets: wallets, their devices, cash.",
    Role.MERCHANT: "A merchant: stores, terminals, payments, shifts, statements.",
}


class _Schemas(GenerateJsonSchema):
    """Names a generic model as `Page.model_parametrized_name` does: `MerchantPage`, not `Page_Merchant_`."""

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(re.sub(r"^(\w+)\[(\w+)\]$", r"\2\1", name))


def _operation(
    endpoint: Endpoint, references: dict[Any, Document], parameters: dict[type[Parameters], Document]
) -> Document:
    described: Document = {
        "operationId": endpoint.name,
        "tags": [endpoint.role.value],
        "summary": endpoint.summary,
        "security": [{endpoint.role.value: []}],
        "parameters": [
            *_parameters(parameters[endpoint.parameters], "path"),
            *_parameters(parameters[endpoint.query], "query"),
            *_header_parameters(endpoint),
        ],
    }
    if endpoint.body is not None:
        schema = references[endpoint.body, "validation"]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    answer = {"application/json": {"schema": references[endpoint.answer, "serialization"]}}
    problem = {"application/problem+json": {"schema": references[ProblemDetails, "serialization"]}}
    etag = {"ETag": {"description": "names this version of it", "schema": {"type": "string"}}}
    described["responses"] = {
        str(status.value): {
            "description": _SAID[status],
            "headers": _HEADERS | (etag if endpoint.versioned else {}),
            "content": answer,
        }
        for status in endpoint.statuses
    } | {
        str(status.value): {
            "description": status.phrase,
            "headers": _HEADERS | ({"Retry-After": _RETRY_AFTER} if status in _MAY_RETRY else {}),
            "content": problem,
        }
        for status in endpoint.problem_statuses
    }
    return described


_SAID = {
    HTTPStatus.OK: "Done, now or before.",
    HTTPStatus.CREATED: "Done now.",
    HTTPStatus.ACCEPTED: "Not decided yet: ask for it again.",
}


def _parameters(schema: Document, where: str) -> list[Document]:
    required = set(schema.get("required", ()))
    found = []
    for name, value in schema.get("properties", {}).items():
        # A parameter that is left out is not null.
        options = [option for option in value.get("anyOf", ()) if option.get("type") != "null"]
        plain = {k: v for k, v in value.items() if k not in ("title", "anyOf", "description", "default")}
        if value.get("default") is not None:
            plain["default"] = value["default"]
        parameter = {
            "name": name,
            "in": where,
            "required": where == "path" or name in required,
            "schema": plain | (options[0] if len(options) == 1 else {"anyOf": options} if options else {}),
        }
        if "description" in value:
            parameter["description"] = value["description"]
        found.append(parameter)
    return found


def _header_parameters(endpoint: Endpoint) -> list[Document]:
    headers: list[Document] = []
    if endpoint.kind is Kind.CREATE:
        schema = {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARS_MAX}
        text = "names what is made: a new one for each new thing, the same for a repeat"
        headers.append(_header("Idempotency-Key", text, schema, required=True))
    if endpoint.kind is Kind.REPLACE:
        headers.append(_header("If-Match", "the `ETag` of what is replaced", {"type": "string"}, required=True))
    if endpoint.speaks:
        text = f"the language of texts for people: {', '.join(LANGUAGES)}; the first is used for any other"
        headers.append(_header("Accept-Language", text, {"type": "string"}, required=False))
    return headers


def _header(name: str, text: str, schema: Document, *, required: bool) -> Document:
    return {"name": name, "in": "header", "required": required, "description": text, "schema": schema}
