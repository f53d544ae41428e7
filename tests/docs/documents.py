"""A reader for the Markdown of docs/: sections, tables and fenced blocks."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

DOCS = Path(__file__).parents[2] / "docs"
_HEADING = re.compile(r"(#+) (.+)")
_SEPARATOR = re.compile(r"\|(?:-+\|)+")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and the lines below it down to the next heading of the same or a higher level."""

    title: str
    level: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def sections(self) -> list["Section"]:
        """All subsections at any depth, in order."""
        headings = [(index, *heading) for index, line in self._outside_fences() if (heading := _heading(line))]
        ends = [
            next((after for after, next_level, _ in headings[place + 1 :] if next_level <= level), len(self.lines))
            for place, (_, level, _) in enumerate(headings)
        ]
        return [
            Section(title, level, self.lines[index + 1 : end])
            for (index, level, title), end in zip(headings, ends, strict=True)
        ]

    def section(self, title: str) -> "Section":
        """Return the only section with this title. Raises LookupError."""
        return _only([section for section in self.sections if section.title == title], f"section {title!r}")

    def table(self, *columns: str) -> list[dict[str, str]]:
        """Return the rows of the only table with these columns, without backticks. Raises LookupError."""
        matches = [rows for header, rows in self._tables() if header == columns]
        return _only(matches, f"table {columns} in {self.title!r}")

    def fences(self, language: str) -> list[str]:
        """Return the contents of the fenced blocks in this language."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)

    def fence(self, language: str) -> str:
        """Return the only fenced block in this language. Raises LookupError."""
        return _only(self.fences(language), f"{language} block in {self.title!r}")

    def _tables(self) -> list[tuple[tuple[str, ...], list[dict[str, str]]]]:
        tables = []
        for index, line in self._outside_fences():
            if not _SEPARATOR.fullmatch(line):
                continue
            header = _cells(self.lines[index - 1])
            rows = []
            for row in self.lines[index + 1 :]:
                if not row.startswith("|"):
                    break
                rows.append(dict(zip(header, _cells(row), strict=True)))
            tables.append((header, rows))
        return tables

    def _outside_fences(self) -> list[tuple[int, str]]:
        outside, fenced = [], False
        for index, line in enumerate(self.lines):
            if line.startswith("```"):
                fenced = not fenced
            elif not fenced:
                outside.append((index, line))
        return outside


def read(name: str) -> Section:
    """Read a whole document of docs/."""
    return Section(name, 0, tuple((DOCS / name).read_text("utf-8").split("\n")))


def anchor(title: str) -> str:
    """Return the anchor of a heading, by the rules of GitHub."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _heading(line: str) -> tuple[int, str] | None:
    match = _HEADING.fullmatch(line)
    return (len(match[1]), match[2].replace("`", "")) if match else None


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("`", "") for cell in row.strip().strip("|").split("|"))


def _only(items: list[Item], name: str) -> Item:
    if len(items) != 1:
        raise LookupError(f"found {name} {len(items)} times, expected it once")
    return items[0]
