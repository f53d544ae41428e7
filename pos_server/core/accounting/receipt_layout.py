"""Text layout in fixed columns, for receipt printers and consoles."""

from unicodedata import combining, east_asian_width


def columns(text: str) -> int:
    """Return the columns that a text occupies: two per wide character (UAX #11), none per combining character."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def center_lines(text: str, width: int) -> list[str]:
    """Return the text centered on as many lines as it needs; no line for an empty text."""
    return [" " * ((width - columns(line)) // 2) + line for line in _wrapped(text, width)]


def justify_lines(left: str, right: str, width: int) -> list[str]:
    """Return two texts at the left and right ends of one line, or on separate lines if they do not fit."""
    gap = width - columns(left) - columns(right)
    if gap >= 1:
        return [left + " " * gap + right]
    return [*_wrapped(left, width), *(" " * (width - columns(line)) + line for line in _wrapped(right, width))]


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for char in text:
        if columns(line + char) > width:
            lines.append(line)
            line = ""
        line += char
    return [*lines, line] if line else lines
