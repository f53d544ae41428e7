"""Lines of a printer or a terminal: how many columns a text takes, and how it is put into them."""

from unicodedata import combining, east_asian_width


def columns(text: str) -> int:
    """How many columns a text takes: two for a wide character (UAX #11), none for one that combines."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def fitted(text: str, width: int) -> list[str]:
    """The text in the middle of as many lines as it needs; none for an empty one."""
    return [" " * ((width - columns(line)) // 2) + line for line in _wrapped(text, width)]


def spread(left: str, right: str, width: int) -> list[str]:
    """Two texts at both ends of a line; on lines of their own where they do not fit on one."""
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
