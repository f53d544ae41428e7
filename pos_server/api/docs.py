"""`GET /docs`: the REST API in Swagger UI. `GET /docs/websocket`: the WebSocket protocol in asyncapi-viewer.

Every file is served from this server's own origin. Swagger UI's files come from the package offapi,
https://github.com/kemingy/offapi; those of https://github.com/Weesho-Lapara/asyncapi-viewer from its own.
"""

from hashlib import sha256
from http import HTTPStatus
from importlib.metadata import distribution
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "data:",  # icons in Swagger UI's stylesheet
    "connect-src": "'self'",  # the document, and requests sent by "Try it out"
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{directive} {source}" for directive, source in _POLICY.items()),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pos-server: {title}</title>
<link rel="icon" href="data:,">
{assets}
</head>
<body>
<nav>
<a href="/docs">REST API</a>
<a href="/docs/websocket">WebSocket protocol</a>
<a href="/openapi.json">OpenAPI document</a>
<a href="/asyncapi.json">AsyncAPI document</a>
</nav>
{viewer}
</body>
</html>
"""


class Docs:
    """Both pages and their assets. An asset's URL holds a digest of its content, so browsers may cache it for good."""

    def __init__(self) -> None:
        self._assets = dict[str, Path]()
        own = Path(__file__).parent / "static"
        # Located without an import: offapi reads all of its 9 MB when imported.
        swagger_ui = Path(str(distribution("offapi").locate_file("offapi")))
        asyncapi_viewer = Path(str(distribution("asyncapi-viewer").locate_file("asyncapi_viewer/static")))
        self._rest = self._page(
            "REST API",
            '<div id="swagger-ui"></div>',
            [swagger_ui / "swagger_style.css", own / "docs.css", swagger_ui / "swagger_bundle.js", own / "docs.js"],
        )
        self._websocket = self._page(
            "WebSocket protocol",
            '<asyncapi-viewer src="/asyncapi.json" sidebar></asyncapi-viewer>',
            [own / "docs.css", asyncapi_viewer / "asyncapi-viewer.iife.js"],
        )

    def routes(self) -> list[Route]:
        return [
            Route("/docs", self._show_rest),
            Route("/docs/websocket", self._show_websocket),
            Route("/docs/{asset}", self._show_asset),
        ]

    def _page(self, title: str, viewer: str, assets: list[Path]) -> str:
        return _PAGE.format(title=title, viewer=viewer, assets="\n".join(map(self._tag, assets)))

    def _tag(self, path: Path) -> str:
        name = f"{sha256(path.read_bytes()).hexdigest()[:16]}-{path.name}"
        self._assets[name] = path
        if path.suffix == ".css":
            return f'<link rel="stylesheet" href="/docs/{name}">'
        return f'<script defer src="/docs/{name}"></script>'

    async def _show_rest(self, request: Request) -> Response:
        return Response(self._rest, headers=_HEADERS, media_type="text/html")

    async def _show_websocket(self, request: Request) -> Response:
        return Response(self._websocket, headers=_HEADERS, media_type="text/html")

    async def _show_asset(self, request: Request) -> Response:
        path = self._assets.get(request.path_params["asset"])
        if path is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        headers = _HEADERS | {"Cache-Control": "public, max-age=31536000, immutable"}
        return FileResponse(path, headers=headers, media_type=_MEDIA_TYPES[path.suffix])
