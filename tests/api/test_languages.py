"""The language selected by `Accept-Language`."""

import pytest

from pos_server.api.support.languages import accepted_language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("ZH-Hans-CN", "zh"),
        ("en, zh", "en"),
        ("zh;q=0.5, en;q=0.8", "en"),
        ("fr, zh-CN;q=0.8, en;q=0.5", "zh"),
        ("fr", "en"),
        ("zh;q=0", "en"),
        ("*", "en"),
        ("zh;q=much", "en"),
        (";;,,=", "en"),
        ("fr," * 50 + "zh", "en"),
    ],
)
def test_accepted_language(header: str, language: str) -> None:
    assert accepted_language(header) == language
