"""Helpers of the command tests: credentials files, and scripts for the fake server."""

from pathlib import Path

from pos_server.core.credentials.device_keys import DeviceKind
from tests.pos_client.fake_server import DECLINED, Peer, credentials

PROGRAM = "import sys; from pos_client.cli.main import {0}_main; sys.exit({0}_main())"


def save_credentials(kind: DeviceKind, folder: Path, url: str = "http://127.0.0.1:9") -> str:
    path = folder / f"{kind.value}.json"
    credentials(kind, url).save(path)
    return str(path)


async def approving(peer: Peer) -> None:
    await peer.welcome()
    while True:
        await peer.answer(await peer.receive())


async def declining(peer: Peer) -> None:
    await peer.welcome()
    while True:
        await peer.answer(await peer.receive(), DECLINED)


async def silent(peer: Peer) -> None:
    await peer.welcome()


async def unknown_outcome(peer: Peer) -> None:
    await peer.welcome()
    await peer.refuse(await peer.receive(), "unknown_outcome", retryable=True, retry_after_s=60)


async def revoking(peer: Peer) -> None:
    await peer.greet()
    await peer.socket.close(4100, "no")
