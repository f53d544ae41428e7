"""The OpenAPI document: it is valid and complete, equals the printed one, and matches the responses."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openapi_spec_validator
import pytest
import pytest_asyncio
from openapi_spec_validator import OpenAPIV31SpecValidator

from pos_server.api.support.dispatch import Dispatcher
from pos_server.core.rest.catalogue import ENDPOINTS
from pos_server.core.rest.endpoints import Endpoint, Kind
from pos_server.core.rest.fields import Page
from pos_server.server import RunningServer
from tests.api.endpoint_requests import DOCUMENT, REQUESTS, World, body_faults, built_world
from tests.end_to_end.server_process import pos_server
from tests.shared import shared_database, shared_server
from tests.support import Shop, settings

dsn = shared_database()
server = shared_server()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, path and description of every operation in the document."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT, cls=OpenAPIV31SpecValidator)
    # The validator rejects a document without a title.
    broken = json.loads(json.dumps(DOCUMENT))
    del broken["info"]["title"]
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_the_document_has_exactly_the_endpoints() -> None:
    found = {(method, path, operation["operationId"]) for method, path, operation in described()}
    assert found == {(operation.method, operation.path, operation.name) for operation in ENDPOINTS}
    assert len({operation.name for operation in ENDPOINTS}) == len(ENDPOINTS)
    assert len({(operation.method, operation.path) for operation in ENDPOINTS}) == len(ENDPOINTS)
    for operation in ENDPOINTS:
        in_path = set(operation.parameters.model_fields)
        assert in_path == {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}, operation.name


def test_an_endpoint_without_a_handler_is_rejected_at_start() -> None:
    with pytest.raises(AssertionError, match="without a handler"):
        Dispatcher(settings().api_limits(), None, ENDPOINTS, {})  # type: ignore[arg-type]


def test_everything_is_described() -> None:
    assert [name for name, schema in SCHEMAS.items() if not schema.get("description")] == []
    for method, path, operation in described():
        assert operation["summary"].endswith("."), (method, path)
        for parameter in operation["parameters"]:
            assert parameter["schema"], (method, path, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"], (method, path, status)


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_schema_is_used_and_every_reference_resolves() -> None:
    assert set(references(DOCUMENT)) == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_links_use_the_fields_of_responses() -> None:
    by_name = {operation["operationId"]: operation for _, _, operation in described()}
    found = set()
    for name, operation in by_name.items():
        for response in operation["responses"].values():
            for link in response.get("links", {}).values():
                led = by_name[link["operationId"]]
                places = {f"{part['in']}.{part['name']}" for part in led["parameters"]}
                assert set(link["parameters"]) <= places
                assert led["security"] == operation["security"]
                found.add((name, link["operationId"]))
    assert {
        ("createMerchant", "getMerchant"),
        ("listApiKeys", "revokeApiKey"),
        ("listMerchants", "listMerchants"),
    } <= found
    assert ("getMerchant", "getMerchant") not in found
    # A key's merchant may be null, so there is no link to it.
    assert ("createApiKey", "getMerchant") not in found


@pytest.mark.asyncio
async def test_the_served_document_equals_the_printed_one(server: RunningServer, tmp_path: Path) -> None:
    async with httpx.AsyncClient() as client:
        served = await client.get(f"{server.url}/openapi.json")
    assert (served.status_code, served.headers["content-type"]) == (200, "application/json")
    # Another process, with other hashes and an unreachable database.
    printed = await pos_server(
        "openapi",
        PYTHONHASHSEED="7",
        POS_DATA_DIR=str(tmp_path / "none"),
        POS_DATABASE_URL="postgresql://127.0.0.1:1/none",
    )
    assert (printed.status, printed.err) == (0, "")
    assert printed.out.encode() == served.content


@pytest_asyncio.fixture
async def world(server: RunningServer, admin: asyncpg.Connection, shop: Shop) -> AsyncIterator[World]:
    async with built_world(server, admin, shop) as built:
        yield built


def broken(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the response body with one fault: a missing field, or a value of an invalid type."""
    for name in answer:
        yield {other: value for other, value in answer.items() if other != name}
        yield answer | {name: {"of": "no type"}}


@pytest.mark.asyncio
@pytest.mark.parametrize("operation", ENDPOINTS, ids=lambda operation: operation.name)
async def test_responses_match_the_document(operation: Endpoint, world: World) -> None:
    request = await REQUESTS[operation.name](world)
    # `ask` compares each response with the document.
    answer = await world.ask(world.by_role[operation.role], operation, request)
    # Not a repeat.
    assert answer.status_code in set(operation.statuses) - ({200} if operation.kind is Kind.CREATE else set())
    schema = {"$ref": f"#/components/schemas/{operation.response.__name__}"}
    assert body_faults(schema, answer.json()) == []
    if issubclass(operation.response, Page):
        assert answer.json()["items"], "a page with nothing on it shows nothing"
    assert [fault for fault in broken(answer.json()) if not body_faults(schema, fault)] == []
