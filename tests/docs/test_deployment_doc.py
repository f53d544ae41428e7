"""docs/deployment.md: services, settings, commands and files exist, and figures match the stack."""

import re
import shlex

from pos_server.cli import main as cli
from pos_server.settings import Settings
from tests.docker.files import COMPOSE_FILES, DOCKER, compose, seconds, services
from tests.docs.documents import DOCS, read

DOCUMENT = read("deployment.md")
SHELL = [line for block in DOCUMENT.fences("sh") for line in block.replace("\\\n", "").splitlines()]
PROSE = " ".join(DOCUMENT.text.split())
# Options of `docker compose run` and `exec` with a value.
WITH_VALUE = {"--volume", "--env"}


def in_containers() -> list[tuple[str, list[str]]]:
    """Return every `docker compose run` and `exec` as (service, command)."""
    commands = []
    for line in SHELL:
        if match := re.search(r"docker compose (?:run|exec) ([^)<>]+)", line):
            words = shlex.split(match[1])
            while words[0].startswith("-"):
                words = words[2 if words[0] in WITH_VALUE else 1 :]
            commands.append((words[0], words[1:]))
    return commands


def test_every_command_in_a_container_exists() -> None:
    run = in_containers()
    assert len(run) > 7
    assert {service for service, _ in run} == {"migrate", "postgres"}
    for service, words in run:
        if service == "migrate":
            cli._parser().parse_args(words)


def test_the_table_has_every_service_of_the_stack() -> None:
    rows = DOCUMENT.section("What runs").table("Service", "What it is", "Who reaches it")
    assert {row["Service"] for row in rows} == set(compose()["services"])


def test_every_setting_and_variable_exists() -> None:
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+[A-Z]\b", DOCUMENT.text))
    known = {f"POS_{name.upper()}" for name in Settings.model_fields}
    of_files = set(re.findall(r"\$\{([A-Z_]+)", "".join(path.read_text() for path in COMPOSE_FILES)))
    assert len(named) > 8
    assert named - known - of_files == {"ADMIN_KEY", "COMPOSE_FILE", "PYTHON_IMAGE"}


def test_the_command_for_secrets_sets_every_variable_of_the_example() -> None:
    command = next(block for block in DOCUMENT.fences("sh") if "umask 077\ntest ! -e .env" in block)
    example = re.findall(r"^([A-Z_]+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    assert len(example) == 7
    assert [name for name in example if not re.search(rf"\b{name}\b", command)] == []


def test_figures_match_the_stack() -> None:
    running = compose()["services"]
    assert f"{seconds(running['server']['stop_grace_period']):.0f} s of `stop_grace_period`" in PROSE
    proxy = (DOCKER / "proxy" / "haproxy.cfg").read_text()
    assert re.search(r"server-template server 8 ", proxy)
    assert "finds up to 8 servers" in PROSE
    assert re.search(r"hard-stop-after 60s", proxy)
    assert "are cut after a minute" in PROSE
    silent_s = Settings.model_fields["heartbeat_s"].default + Settings.model_fields["heartbeat_timeout_s"].default
    assert f"longer than {silent_s} s without a byte" in PROSE
    assert {"--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=4GB"} <= set(
        running["prometheus"]["command"]
    )
    assert f"of the {running['postgres']['command'][4].partition('=')[2]} that Postgres has" in PROSE
    mib = {"m": 1, "g": 1024}
    limits = [
        (service["deploy"]["resources"]["limits"]["memory"], service["deploy"].get("replicas", 1))
        for service in running.values()
    ]
    assert sum(int(limit[:-1]) * mib[limit[-1]] * count for limit, count in limits) == 7 * 1024
    for _, name, service in services():
        for port in service.get("ports", []):
            host = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", port).removeprefix("127.0.0.1:").partition(":")[0]
            assert f"port {host}" in PROSE, name


def test_the_table_of_executed_parts_names_existing_tests() -> None:
    rows = DOCUMENT.section("What was executed").table("What", "How", "Where")
    assert rows[-1]["How"] == "**not executed**"
    tests = [row["Where"] for row in rows if row["Where"].startswith("tests/")]
    assert len(tests) >= 4
    assert [test for test in tests if not (DOCS.parent / test).exists()] == []
