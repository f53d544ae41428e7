"""The pages for readers are complete, load only from the server itself, and run no inline script."""

import re
from html.parser import HTMLParser

import pytest

from pos_server.server import RunningServer
from tests.support import http_client

PAGES = ("/docs", "/docs/websocket")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PageParser(HTMLParser):
    """Collect every URL of a page, and everything that a policy without 'unsafe-inline' blocks."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.title = ""
        self.links, self.assets, self.inline = list[str](), list[str](), list[str]()
        self._element = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element = tag
        for name, value in attrs:
            if name in ("href", "src"):
                (self.assets if tag in ("link", "script") else self.links).append(value or "")
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        if self._element in ("script", "style") and data.strip():
            self.inline.append(data)
        elif self._element == "title":
            self.title += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self._element = ""


def test_the_parser_finds_what_is_inline() -> None:
    page = PageParser(
        '<title>t</title><p style="x" onclick="y"><script src="/a">b</script><style>c</style><a href="/d">'
    )
    assert (page.title, page.assets, page.links) == ("t", ["/a"], ["/d"])
    assert page.inline == ["p style", "p onclick", "b", "c"]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PAGES)
async def test_a_page_and_all_that_it_loads_come_from_the_server(server: RunningServer, path: str) -> None:
    async with http_client(server.url) as client:
        response = await client.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert HEADERS.items() <= dict(response.headers).items()
        page = PageParser(response.text)
        assert page.title.startswith("pos-server: ")
        assert page.inline == []
        assets = [url for url in page.assets if url != "data:,"]
        assert {"/openapi.json", "/asyncapi.json"} <= set(page.links)
        for url in page.links:
            assert (await client.get(url)).status_code == 200
        assert any(url.endswith(".js") for url in assets)
        for url in assets:
            asset = await client.get(url)
            kind = "text/css" if url.endswith(".css") else "text/javascript"
            assert (asset.status_code, asset.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
            assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert HEADERS.items() <= dict(asset.headers).items()
            if url.endswith(".css"):
                assert "@import" not in asset.text
                assert {each[:5] for each in re.findall(r"""url\(["']?([^)]*)""", asset.text)} <= {"data:"}


@pytest.mark.asyncio
async def test_swagger_ui_is_started_with_the_document(server: RunningServer) -> None:
    async with http_client(server.url) as client:
        assets = PageParser((await client.get("/docs")).text).assets
        viewer, start = [(await client.get(url)).text for url in assets if url.endswith(".js")]
    assert "SwaggerUIBundle" in viewer
    assert start.count("SwaggerUIBundle(") == 1
    assert 'url: "/openapi.json"' in start
    # No badge of the validator that Swagger UI's makers run.
    assert "validatorUrl: null" in start


@pytest.mark.asyncio
async def test_the_asyncapi_viewer_shows_the_document(server: RunningServer) -> None:
    async with http_client(server.url) as client:
        page = (await client.get("/docs/websocket")).text
        [script] = [url for url in PageParser(page).assets if url.endswith(".js")]
        viewer = (await client.get(script)).text
    assert '<asyncapi-viewer src="/asyncapi.json" sidebar></asyncapi-viewer>' in page
    assert "customElements.define" in viewer
    assert "asyncapi-viewer" in viewer


@pytest.mark.asyncio
async def test_another_name_is_not_found(server: RunningServer) -> None:
    async with http_client(server.url) as client:
        for name in ("docs.js", "..%2Fdocs.py", "scalar.js"):
            response = await client.get(f"/docs/{name}")
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
