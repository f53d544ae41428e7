"""Reads the forms of Markdown that docs/ uses: sections, tables and fenced blocks."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

DOCS = Path(__file__).parents[2] / "docs"
_HEADING = re.compile(r"(#+) (.+)")
_SEPARATOR = re.compile(r"\|(?:-+\|)+")
Found = TypeVar("Found")


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
        """Every section in this one, at any depth, in order."""
        headings = [(index, *found) for index, line in self._outside_fences() if (found := _heading(line))]
        ends = [
            next((after for after, next_level, _ in headings[place + 1 :] if next_level <= level), len(self.lines))
            for place, (_, level, _) in enumerate(headings)
        ]
        return [
            Section(title, level, self.lines[index + 1 : end])
            for (index, level, title), end in zip(headings, ends, strict=True)
        ]

    def section(self, title: str) -> "Section":
        """The one section with this title. Raises LookupError."""
        return _only([section for section in self.sections if section.title == title], f"section {title!r}")

    def table(self, *columns: str) -> list[dict[str, str]]:
        """The rows of the one table with these columns. Cells are stripped of backticks. Raises LookupError."""
        found = [rows for header, rows in self._tables() if header == columns]
        return _only(found, f"table {columns} in {self.title!r}")

    def fences(self, language: str) -> list[str]:
        """The contents of the fenced blocks in this language."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)

    def fence(self, language: str) -> str:
        """The one fenced block in this language. Raises LookupError."""
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
    """A document of docs/, whole."""
    return Section(name, 0, tuple((DOCS / name).read_text("utf-8").split("\n")))


def anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _heading(line: str) -> tuple[int, str] | None:
    match = _HEADING.fullmatch(line)
    return (len(match[1]), match[2].replace("`", "")) if match else None


def _cells(row: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("`", "") for cell in row.strip().strip("|").split("|"))


def _only(found: list[Found], what: str) -> Found:
    if len(found) != 1:
        raise LookupError(f"{len(found)} times {what}, expected once")
    return found[0]
