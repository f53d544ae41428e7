"""The documentation site (`make docs`). Its navigation is the list of pages in index.md, so the two cannot differ."""

import re
import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "pos-server"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
root_doc = "index"
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["site.css"]

# Links and anchors work as they do in the repository: a link to a heading that does not exist is an error (`-W`).
myst_heading_anchors = 4
nitpicky = True

# Diagrams become SVG files when the site is built, so a reader's browser loads nothing from elsewhere.
myst_fence_as_directive = ["mermaid"]
mermaid_cmd = f"{shlex.quote(sys.executable)} -m mermaidx"
mermaid_output_format = "svg"

_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"^- \[[^]]+\]\(([\w-]+)\.md\)", re.MULTILINE)


def add_navigation(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Append a hidden table of contents for each section of index.md that lists pages."""
    if docname == root_doc:
        for caption, text in _SECTION.findall(source[0]):
            if pages := _PAGE.findall(text):
                source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def setup(app: "Sphinx") -> None:
    """Register the navigation with Sphinx."""
    app.connect("source-read", add_navigation)
