"""Builds a stage of docker/Dockerfile without Docker: runs its COPY and RUN steps in order, in a directory.

Absolute paths of the image are mapped to paths below that directory. Unlike in a real build, the base image is this
Python on this system, RUN can access files outside of the directory, users do not exist, and pip's own cache replaces
the cache mounts.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

from tests.docker.files import DOCKER, ROOT

_MOUNT = re.compile(r"--mount=type=cache,target=\S+\s+")
# Absolute paths that the steps use.
_PATHS = re.compile(r"(?<![\w.])/(?=build\b|opt/|tmp\b)")


@dataclass(slots=True)
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def value(self, instruction: str) -> str:
        """Return the value of the only such instruction of this stage. Raises ValueError."""
        (value,) = (value for name, value in self.steps if name == instruction)
        return value


def stages() -> dict[str, Stage]:
    """Return the Dockerfile's stages by name, in order."""
    with (DOCKER / "Dockerfile").open("rb") as file:
        parsed: list[dict[str, Any]] = DockerfileParser(fileobj=file).structure
    by_name: dict[str, Stage] = {}
    for step in parsed:
        name, value = step["instruction"], step["value"]
        if name == "FROM":
            base, _, as_name = value.partition(" AS ")
            stage = by_name[as_name] = Stage(as_name, base)
        elif name != "COMMENT" and by_name:
            stage.steps.append((name, value))
    return by_name


def context(target: Path) -> None:
    """Copy the build context: the files that .dockerignore includes, by the rules of Docker's own client."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    for name in sorted(exclude_paths(str(ROOT), patterns)):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


class Build:
    """Builds stages below `directory`. The stage that is being built has its files at `root`, a fixed path."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.context = directory / "context"
        self._done = directory / "done"
        self._stages = stages()
        context(self.context)

    def stage(self, name: str) -> dict[str, str]:
        """Build a stage and the stages it copies from. Leaves its files at `root` and returns its environment."""
        stage = self._stages[name]
        for instruction, value in self._chain(stage):
            if instruction == "COPY" and value.startswith("--from="):
                self._build_aside(value.split()[0].removeprefix("--from="))
        self.root.mkdir(parents=True)
        environment: dict[str, str] = {}
        workdir = self.root
        for instruction, value in self._chain(stage):
            if instruction == "WORKDIR":
                workdir = Path(self._here(value))
                workdir.mkdir(parents=True, exist_ok=True)
            elif instruction == "ENV":
                environment |= {key: self._here(set_to) for key, _, set_to in map(_pair, shlex.split(value))}
            elif instruction == "COPY":
                self._copy(value, workdir)
            elif instruction == "RUN":
                self._run(value, workdir, environment)
        return environment

    def _chain(self, stage: Stage) -> list[tuple[str, str]]:
        base = self._stages.get(stage.base)
        return [*(self._chain(base) if base else []), *stage.steps]

    def _build_aside(self, name: str) -> None:
        if not (self._done / name).exists():
            self.stage(name)
            self._done.mkdir(exist_ok=True)
            self.root.rename(self._done / name)

    def _here(self, text: str) -> str:
        return _PATHS.sub(f"{self.root}/", text)

    def _copy(self, value: str, workdir: Path) -> None:
        *sources, target = value.split()
        origin = self.context
        if sources[0].startswith("--from="):
            origin = self._done / sources.pop(0).removeprefix("--from=")
        to = workdir / self._here(target)
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, to, symlinks=True)
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)

    def _run(self, value: str, workdir: Path, environment: dict[str, str]) -> None:
        # pip needs some of our environment to find packages; `python` is that of the base image.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("POS_", "PYTHON", "VIRTUAL_ENV"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", self._here(_MOUNT.sub("", value))],
            cwd=workdir, env=inherited | environment | {"PATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{value}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def command(value: str) -> list[str]:
    """Return the arguments of an ENTRYPOINT, CMD or HEALTHCHECK in exec form. Raises ValueError for the shell form."""
    arguments: list[str] = json.loads(value[value.index("[") :])
    return arguments
