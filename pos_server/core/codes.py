"""String codes of the protocol that carry their own description: documents are generated from it."""

from enum import StrEnum
from typing import Self


class DescribedCode(StrEnum):
    """A code and its description, in Markdown, for developers."""

    _value_: str
    description: str

    def __new__(cls, value: str, description: str = "") -> Self:
        code = str.__new__(cls, value)
        code._value_ = value
        code.description = description
        return code
