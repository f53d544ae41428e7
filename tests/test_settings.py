"""Settings: limits, their relations, and errors that name the variable and never contain a secret."""

import base64

import pytest

from pos_server.settings import Settings, SettingsError, load_settings, new_master_key, parse_master_keys

KEY = base64.b64encode(b"k" * 32).decode()


def test_defaults_are_valid() -> None:
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POS_PORT", "70000"),
        ("POS_PORT", "web"),
        ("POS_FRAME_BYTES_MAX", "0"),
        ("POS_OPERATION_DEADLINE_S", "-1"),
        ("POS_QUEUE_OPERATIONS_MAX", "1.5"),
        ("POS_METRICS_TOKEN", "fifteen-letters"),
        ("POS_TRACE_SAMPLE", "1.5"),
    ],
)
def test_an_error_names_the_variable_and_not_its_value(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: ") as error:
        load_settings()
    assert value not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"POS_BATCH_OPERATIONS_MAX": "20000"}, "POS_BATCH_OPERATIONS_MAX must not exceed POS_QUEUE_OPERATIONS_MAX"),
        ({"POS_ARCHIVE_MIN_AGE_DAYS": "365"}, "POS_ARCHIVE_MIN_AGE_DAYS must exceed POS_REFUND_WINDOW_DAYS"),
        (
            {"POS_CANCEL_WINDOW_S": "172800", "POS_REFUND_WINDOW_DAYS": "1", "POS_ARCHIVE_MIN_AGE_DAYS": "2"},
            "must exceed POS_REFUND_WINDOW_DAYS and POS_CANCEL_WINDOW_S",
        ),
        ({"POS_PEERS_ALIVE_S": "6"}, "POS_RESUME_OVERLAP_S must exceed"),
        (
            {"POS_BATCH_TIMEOUT_S": "28", "POS_OPERATION_DEADLINE_S": "28", "POS_RESUME_OVERLAP_S": "60"},
            "POS_BATCH_TIMEOUT_S must be less than 28",
        ),
        ({"POS_BATCH_TIMEOUT_S": "60"}, "POS_BATCH_TIMEOUT_S must not exceed POS_OPERATION_DEADLINE_S"),
    ],
)
def test_relations_are_checked(variables: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=text):
        load_settings()


def test_arguments_take_precedence_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POS_PORT", "1")
    assert load_settings(port=2).port == 2
    assert load_settings(port=None).port == 1


def test_the_first_master_key_is_the_current_one() -> None:
    keyring = parse_master_keys(f"new:{KEY}, old:{KEY}")
    assert (keyring.current, set(keyring.keys)) == ("new", {"new", "old"})
    assert KEY not in repr(keyring)


@pytest.mark.parametrize(
    "text",
    ["", KEY, f":{KEY}", f"k 1:{KEY}", "k1:", "k1:c2hvcnQ=", "k1:***", f"k1:{KEY},k1:{KEY}", f"{'k' * 33}:{KEY}"],
)
def test_an_error_about_master_keys_does_not_contain_them(text: str) -> None:
    with pytest.raises(SettingsError, match="POS_MASTER_KEYS") as error:
        parse_master_keys(text)
    assert KEY not in str(error.value)


def test_a_new_master_key_is_valid_and_random() -> None:
    assert new_master_key("k1") != new_master_key("k1")
    assert parse_master_keys(new_master_key("k7")).current == "k7"


def test_secrets_are_not_in_the_repr() -> None:
    settings = load_settings(master_keys=f"k1:{KEY}", database_url="postgresql://pos:hunter2@db/pos")
    assert KEY not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_every_setting_is_described() -> None:
    """docs/settings.md is generated from the descriptions."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
