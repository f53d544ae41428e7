"""`GET /openapi.json`: the REST API for tools, and `/docs` for people. `pos-server openapi` prints the first."""

from html import escape
from importlib.metadata import version
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ..core.rest.catalogue import ENDPOINTS
from ..core.rest.openapi import openapi_document
from ..core.rest.problems import ProblemCode, problem_text

Document = dict[str, Any]


def openapi_json() -> bytes:
    """The document, indented, in UTF-8, with a line break at its end."""
    document = openapi_document(version("pos-server"), ENDPOINTS)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class OpenApi:
    """Made once: neither changes while the server runs."""

    def __init__(self) -> None:
        self._json = openapi_json()
        self._page = docs_page(orjson.loads(self._json)).encode()

    async def show(self, request: Request) -> Response:
        return Response(self._json, media_type="application/json")

    async def page(self, request: Request) -> Response:
        # Nothing is loaded from anywhere, not even from here.
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(self._page, headers=policy, media_type="text/html; charset=utf-8")


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1b1b1b; }
h2 { margin-top: 3rem; border-bottom: 2px solid #ddd; }
h3 { margin: 2rem 0 0; font-family: ui-monospace, monospace; font-size: 1rem; }
.method { display: inline-block; min-width: 4rem; font-weight: bold; }
.GET { color: #0a5; } .POST { color: #05a; } .PATCH, .PUT { color: #a60; } .DELETE { color: #a00; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #eee; }
th { background: #f6f6f6; }
code { font-family: ui-monospace, monospace; }
nav { margin: 1rem 0; }
nav ul { margin: .25rem 0; padding-left: 1.5rem; columns: 2; font-size: .9rem; }
"""


def docs_page(document: Document) -> str:
    """The document as one page of HTML, without scripts and without anything from elsewhere."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])} REST API</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}: REST API</h1>",
        *(f"<p>{_prose(text)}</p>" for text in info["description"].split("\n\n")),
        "<p>For tools: <a href='/openapi.json'>/openapi.json</a></p>",
    ]
    by_tag = {
        tag["name"]: [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
        for tag in document["tags"]
    }
    parts += [_index(name, operations) for name, operations in by_tag.items() if operations]
    parts.append("<nav><a href='#problems'>problems</a> <a href='#schemas'>bodies</a></nav>")
    for tag in document["tags"]:
        if by_tag[tag["name"]]:
            name = escape(tag["name"])
            parts.append(f"<h2 id='{name}'>{name}</h2><p>{_prose(tag['description'])}</p>")
            parts += [_operation(*operation) for operation in by_tag[tag["name"]]]
    parts += ["<h2 id='problems'>Problems</h2>", f"<p>{_prose(_PROBLEMS)}</p>"]
    rows = [(code.value, str(problem_text(code).status.value), _prose(problem_text(code).text)) for code in ProblemCode]
    parts.append(_table(("Code", "Status", "Meaning"), rows))
    parts.append("<h2 id='schemas'>Bodies</h2>")
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts) + "\n"


_PROBLEMS = "Each is a `ProblemDetails`. What the ledger refuses has a `code` of its own: docs/api.md has them all."


def _index(tag: str, operations: list[tuple[str, str, Document]]) -> str:
    links = "".join(
        f"<li><a href='#{escape(operation['operationId'])}'>{escape(operation['operationId'])}</a> "
        f"{_prose(operation['summary'])}</li>"
        for _, _, operation in operations
    )
    return f"<nav><a href='#{escape(tag)}'>{escape(tag)}</a><ul>{links}</ul></nav>"


def _schema(name: str, schema: Document) -> str:
    head = f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{_prose(schema.get('description', ''))}</p>"
    if "properties" not in schema:
        return f"{head}<p>{_type(schema)}</p>"
    required = set(schema.get("required", ()))
    rows = [(key, _type(value), _about(value, key in required)) for key, value in schema["properties"].items()]
    return head + _table(("Field", "Type", "Meaning"), rows)


def _operation(method: str, path: str, operation: Document) -> str:
    lines = [
        f"<h3 id='{escape(operation['operationId'])}'>",
        f"<span class='method {method}'>{method}</span> {escape(path)}</h3>",
        f"<p>{_prose(operation['summary'])} <code>{escape(operation['operationId'])}</code></p>",
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        lines.append(f"<p>Body: {_type(schema)}</p>")
    if operation["parameters"]:
        rows = [
            (part["name"], f"{part['in']}, {_type(part['schema'])}", _about(part, part["required"]))
            for part in operation["parameters"]
        ]
        lines.append(_table(("Parameter", "Type", "Meaning"), rows))
    answers = [
        f"{status} {_type(next(iter(response['content'].values()))['schema'])}"
        for status, response in operation["responses"].items()
        if status < "300"
    ]
    problems = [status for status in operation["responses"] if status >= "400"]
    lines.append(f"<p>Answers: {', '.join(answers)}. <a href='#problems'>Problems</a>: {', '.join(problems)}.</p>")
    return "\n".join(lines)


def _type(schema: Document) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(orjson.dumps(value).decode())}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    return escape(str(schema.get("format", schema.get("type", "anything")))) + _bounds(schema)


def _bounds(schema: Document) -> str:
    """How large a number, or how long a text, may be."""
    least, most = schema.get("minimum"), schema.get("maximum")
    chars = schema.get("maxLength") if "format" not in schema else None
    if chars is not None:
        return f", at most {chars} characters"
    if least is None or most is None:
        return ""
    return f", {least} to {'2<sup>53</sup> - 1' if most == 2**53 - 1 else most}"


def _about(described: Document, required: bool) -> str:
    text = _prose(described.get("description", ""))
    if required:
        return text
    default = described.get("default", described.get("schema", {}).get("default"))
    left_out = "optional" if default is None else f"optional, <code>{escape(orjson.dumps(default).decode())}</code>"
    return f"{text} ({left_out})" if text else left_out


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    heads = "".join(f"<th>{text}</th>" for text in head)
    body = "".join(f"<tr><td><code>{escape(a)}</code></td><td>{b}</td><td>{c}</td></tr>" for a, b, c in rows)
    return f"<table><tr>{heads}</tr>{body}</table>"


def _prose(text: str) -> str:
    """Escaped, with `code` set as such."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))
