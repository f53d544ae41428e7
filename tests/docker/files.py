"""The files in docker/, parsed for the tests."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yaml"))


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """Load a compose file with anchors and merge keys resolved; variables are not substituted."""
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text())
    return loaded


def services() -> list[tuple[str, str, dict[str, Any]]]:
    """Return every service as (file, name, service)."""
    return [
        (path.name, name, service) for path in COMPOSE_FILES for name, service in compose(path.name)["services"].items()
    ]


def seconds(duration: str) -> float:
    """Return the seconds of a duration in Compose or HAProxy format, such as 30s or 2m."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h)", duration)
    assert match, duration
    return int(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2]]


def prometheus() -> dict[str, Any]:
    """Load the configuration of Prometheus."""
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
    return loaded
