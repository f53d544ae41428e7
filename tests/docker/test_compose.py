"""Compose files: valid by the specification, correct names, confined containers, no secrets."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pos_server.settings import Settings
from tests.docker.files import COMPOSE_FILES, DOCKER, ROOT, compose, prometheus, seconds, services

METRICS = "POS_METRICS_TOKEN"
SECRETS = ("PASSWORD", "MASTER_KEYS", "ADMIN_KEY", "TOKEN")


def default(setting: str) -> Any:
    return Settings.model_fields[setting].default


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_the_file_is_valid_by_the_compose_specification(path: Path) -> None:
    program = Path(sys.executable).with_name("check-jsonschema")
    checked = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_there_are_two_servers_and_slots_for_a_rolling_upgrade() -> None:
    assert compose()["services"]["server"]["deploy"]["replicas"] == 2
    (slots,) = re.findall(r"server-template server (\d+) server:8080", (DOCKER / "proxy" / "haproxy.cfg").read_text())
    assert int(slots) >= 4, "a rolling upgrade runs twice the replicas for a while"


def test_every_setting_exists() -> None:
    named = {
        name
        for _, service_name, service in services()
        if not service_name.startswith("locust")
        for name in service.get("environment", {})
        if name.startswith("POS_")
    }
    assert {"POS_DATABASE_URL", "POS_MASTER_KEYS", "POS_TRUSTED_PROXIES", METRICS} <= named
    assert {name.removeprefix("POS_").lower() for name in named} <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("file", "name", "service"), services(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_container_is_pinned_and_confined(file: str, name: str, service: dict[str, Any]) -> None:
    if file == "compose.tls.yaml":
        assert set(service) == {"command", "ports", "volumes"}, "nothing else of the proxy changes"
        return
    tag = service["image"].partition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag), f"{service['image']}: the tag must be a version"
    assert not service["user"].startswith("0:")
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Postgres writes outside of its volume: its socket and its lock.
    assert service.get("read_only", False) or name == "postgres"
    assert set(service["deploy"]["resources"]["limits"]) == {"memory", "pids"}
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])


def test_only_the_proxy_is_reachable_from_other_machines_and_only_with_tls() -> None:
    published = [(file, name, port) for file, name, service in services() for port in service.get("ports", [])]
    assert len(published) >= 4
    assert [each for each in published if not each[2].startswith("127.0.0.1:")] == [
        ("compose.tls.yaml", "proxy", "${POS_HTTPS_PORT:-443}:8443")
    ]


def test_our_images_have_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {service["image"] for _, _, service in services() if service.get("image", "").startswith("pos-server")}
    assert ours == {f"pos-server:{version}", f"pos-server-loadtest:{version}"}
    assert f'org.opencontainers.image.version="{version}"' in (DOCKER / "Dockerfile").read_text()


def test_servers_wait_for_the_migration_which_alone_has_the_owners_password() -> None:
    running = compose()["services"]
    assert running["server"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert running["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert running["migrate"]["restart"] == "no"
    assert "POS_MASTER_KEYS" not in running["migrate"]["environment"]
    with_owner = [
        name
        for name, service in running.items()
        if "LEDGER_OWNER_PASSWORD" in str(service["environment" if "environment" in service else "image"])
    ]
    assert with_owner == ["postgres", "migrate"]
    assert running["server"]["environment"]["POS_DATABASE_URL"].startswith("postgresql://pos_server:")


def test_the_stop_grace_period_is_longer_than_two_drains() -> None:
    grace_s = seconds(compose()["services"]["server"]["stop_grace_period"])
    assert grace_s > 2 * default("drain_timeout_s")


def test_file_limits_exceed_the_number_of_connections() -> None:
    running = compose()["services"]
    connections = default("connections_max")
    assert running["server"]["ulimits"]["nofile"]["soft"] > connections + 1000
    proxy = (DOCKER / "proxy" / "haproxy.cfg").read_text()
    (in_proxy,) = re.findall(r"\bmaxconn (\d+)", proxy)
    assert int(in_proxy) >= 2 * connections, "both servers can be full"
    assert running["proxy"]["ulimits"]["nofile"]["soft"] > 2 * int(in_proxy)


def test_servers_trust_only_the_proxy() -> None:
    running = compose()["services"]
    assert (
        running["server"]["environment"]["POS_TRUSTED_PROXIES"] == running["proxy"]["networks"]["front"]["ipv4_address"]
    )


def test_prometheus_and_the_servers_have_the_same_token() -> None:
    running = compose()["services"]
    assert running["prometheus"]["environment"][METRICS] == running["server"]["environment"][METRICS]
    (path,) = re.findall(r"> (\S+)", " ".join(running["prometheus"]["entrypoint"]))
    (job,) = [job for job in prometheus()["scrape_configs"] if job["job_name"] == "pos-server"]
    assert job["authorization"] == {"credentials_file": path}
    assert any(path.startswith(mount.partition(":")[0] + "/") for mount in running["prometheus"]["tmpfs"])
    assert "watch" not in running["proxy"]["networks"]


def test_postgres_is_durable_and_its_volume_is_the_data_directory_of_version_18() -> None:
    postgres = compose()["services"]["postgres"]
    assert {"--fsync=on", "--full_page_writes=on", "--synchronous_commit=on"} <= set(postgres["command"])
    assert postgres["image"].startswith("postgres:18.")
    assert "postgres:/var/lib/postgresql" in postgres["volumes"]


def test_mounted_files_exist() -> None:
    sources = {
        volume.partition(":")[0]
        for _, _, service in services()
        for volume in service.get("volumes", [])
        if volume[0] == "."
    }
    assert len(sources) >= 5
    assert [source for source in sources if not (DOCKER / source).exists()] == []


def test_no_file_contains_a_secret() -> None:
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / ".env.example").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    secret = {name for name in example if name.endswith(SECRETS)}
    assert len(secret) == 6
    assert {example[name] for name in secret} == {""}
    for _, name, service in services():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith(SECRETS):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {variable} must be required from .env"
            assert not re.search(r"://\w+:(?!\$\{)", value), f"{name}: {variable}"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "!.env.example"} <= set(ignored)


def test_every_required_variable_is_documented() -> None:
    named = {
        variable
        for path in COMPOSE_FILES
        for variable, required in re.findall(r"\$\{([A-Z_]+)(:[?-])", path.read_text())
        if required == ":?"
    }
    document = (ROOT / "docs" / "deployment.md").read_text()
    example = (DOCKER / ".env.example").read_text()
    assert [variable for variable in sorted(named) if f"{variable}=" not in example + document] == []
