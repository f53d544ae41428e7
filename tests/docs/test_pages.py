"""Pages of docs/ name their readers and are in the index; links in all Markdown files are valid."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.documents import DOCS, Section, anchor

ROOT = DOCS.parent
PAGES = sorted(path for path in DOCS.glob("*.md"))
FILES = [*sorted(ROOT.glob("*.md")), *PAGES]


def section(path: Path) -> Section:
    return Section(path.name, 0, tuple(path.read_text("utf-8").split("\n")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_starts_with_its_audience(page: Path) -> None:
    title, blank, audience, *_ = section(page).lines
    assert title.startswith("# ")
    assert blank == ""
    assert re.fullmatch(r"\*For .+\.\*", audience)


def test_the_index_lists_each_page_once() -> None:
    listed = re.findall(r"^- \[[^]]+\]\(([\w-]+\.md)\)", section(DOCS / "index.md").text, re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES if page.name != "index.md"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_links_are_valid(file: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", section(file).text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        url = urlsplit(link)
        if url.scheme:
            assert url.scheme == "https", link
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", url.netloc), link
            continue
        target = file.parent / url.path if url.path else file
        assert target.exists(), link
        assert not url.fragment or url.fragment in {anchor(part.title) for part in section(target).sections}, link
