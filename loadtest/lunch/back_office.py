"""Opens the stores at a running server, and checks its books at the end: both through the REST API, as an owner would.

A process of its own, since locust's has gevent in it and the API's client is asyncio. It reads JSON from standard input
and writes its answer to the file that is named there, in a directory of its caller's only: it holds devices' keys.
The admin's key comes in the environment, as ADMIN_KEY_VARIABLE.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loadtest.lunch.plan import BALANCE_MINOR, POOR_BALANCE_MINOR, Lane, is_poor, lanes_of
from loadtest.lunch.recorder import PaymentRecord
from loadtest.shared.opening import back_offices, map_in_chunks, new_merchant, new_till, new_wallet
from pos_client import ApiError, Credentials
from pos_client.rest.client import ApiClient
from pos_server.core.money import MAX_AMOUNT_MINOR
from pos_server.core.payments.payment import Purpose, Status
from pos_server.core.rest.issuer import WalletLimitsReplace
from pos_server.core.rest.merchant_stores import StoreCreate

ADMIN_KEY_VARIABLE = "POS_ADMIN_KEY"
_NAME = "Lunch & Sons"
# The same few customers eat many times on this day.
_AS_MUCH_A_DAY = WalletLimitsReplace(
    day_minor_max=MAX_AMOUNT_MINOR, pin_free_day_count_max=MAX_AMOUNT_MINOR, pin_free_day_minor_max=MAX_AMOUNT_MINOR
)
_PROBLEMS_SHOWN = 10


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Run this module as a process and return its answer. Raises SystemExit when it fails."""
    with TemporaryDirectory(prefix="pos-store-") as folder:
        path = Path(folder) / "answer.json"  # a directory of mode 0700, and gone with the block
        done = subprocess.run(
            [sys.executable, "-m", "loadtest.lunch.back_office"],
            input=json.dumps(request | {"out": str(path)}),
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        if done.returncode:
            raise SystemExit("the back office failed; its reason stands above")
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer


async def open_stores(url: str, admin_key: str, stores: int, tills: int, wallets: int) -> dict[str, Any]:
    """So many stores of one merchant, each with `tills`, each of these with `wallets`: lanes and devices as data."""
    lanes = lanes_of(stores, tills, wallets)
    merchant_id = await new_merchant(url, admin_key, _NAME)
    async with back_offices(url, admin_key, merchant_id, f"opening of {_NAME}") as (issuer, merchant):
        store_ids = [
            (await merchant.create_store(StoreCreate(name=f"Store {number + 1}"))).store_id for number in range(stores)
        ]

        async def till(lane: Lane) -> dict[str, Any]:
            name = f"Till {lane.till % tills + 1}"
            return _plain(await new_till(url, merchant, store_ids[lane.store], name))

        async def customer(place: int) -> dict[str, Any]:
            poor = is_poor(place, wallets)
            balance_minor = POOR_BALANCE_MINOR if poor else BALANCE_MINOR
            wallet = await new_wallet(url, issuer, merchant_id, f"Customer {place + 1}", balance_minor)
            limits = await issuer.get_wallet_limits(wallet.number)
            await issuer.replace_wallet_limits(wallet.number, _AS_MUCH_A_DAY, if_match=limits.etag or "")
            return _plain(wallet) | {"balance_minor": balance_minor, "is_poor": poor}

        return {
            "merchant_id": merchant_id,
            "lanes": [asdict(lane) for lane in lanes],
            "tills": await map_in_chunks(lanes, till),
            "wallets": await map_in_chunks(range(len(lanes) * wallets), customer),
        }


def _plain(device: Credentials) -> dict[str, Any]:
    key = base64.b64encode(device.device_key).decode()
    return {"kind": device.kind, "number": device.number, "slot": device.slot, "kid": device.kid, "key": key}


async def check_books(
    url: str, admin_key: str, merchant_id: int, records: Sequence[PaymentRecord], balances: dict[int, int]
) -> dict[str, Any]:
    """Hold every payment and every wallet's balance against what the tills know. `balances` are those of the opening.

    Each payment that a till began must be in the ledger once, with the outcome that the till knows, and none besides.
    """
    async with back_offices(url, admin_key, merchant_id, f"check of {_NAME}") as (issuer, merchant):
        stored = [
            PaymentRecord(
                str(payment.payment_id),
                0,
                payment.amount_minor or 0,
                payment.status,
                payment.decline_code,
                payment.refunded_minor,
            )
            async for payment in merchant.list_payments()
            if payment.purpose == Purpose.SALE
        ]
        held = dict(await map_in_chunks(sorted(balances), lambda number: _held(issuer, number)))
    problems = payment_problems(records, stored)
    must_hold = balances_after(balances, records)
    problems += [
        f"wallet {number} holds {held[number]}, not {must_minor}"
        for number, must_minor in must_hold.items()
        if held[number] != must_minor
    ]
    return {
        "payments": len(stored),
        "wallets": len(held),
        "problems": len(problems),
        "first": problems[:_PROBLEMS_SHOWN],
    }


async def _held(issuer: ApiClient, number: int) -> tuple[int, int]:
    return number, (await issuer.get_wallet(number)).balance_minor


def payment_problems(records: Iterable[PaymentRecord], stored: Iterable[PaymentRecord]) -> list[str]:
    """Payments that are not once in both, with one outcome."""
    known, rows = Counter(map(_outcome, records)), Counter(map(_outcome, stored))
    return [f"only the till knows: {of}" for of in (known - rows).elements()] + [
        f"only the ledger knows: {of}" for of in (rows - known).elements()
    ]


def _outcome(payment: PaymentRecord) -> tuple[str, int, str, str | None, int]:
    return payment.payment_id, payment.amount_minor, payment.status, payment.decline_code, payment.refunded_minor


def balances_after(balances: dict[int, int], records: Iterable[PaymentRecord]) -> dict[int, int]:
    """What each wallet must hold after these payments."""
    paid: defaultdict[int, int] = defaultdict(int)
    for payment in records:
        if payment.status == Status.APPROVED:
            paid[payment.wallet_number] += payment.amount_minor - payment.refunded_minor
    return {number: balance_minor - paid[number] for number, balance_minor in balances.items()}


async def _answer(request: dict[str, Any]) -> dict[str, Any]:
    admin_key = os.environ[ADMIN_KEY_VARIABLE]
    if request["do"] == "open":
        return await open_stores(request["url"], admin_key, request["stores"], request["tills"], request["wallets"])
    records = [PaymentRecord(*values) for values in request["payments"]]
    balances = {int(number): balance_minor for number, balance_minor in request["balances"].items()}
    return await check_books(request["url"], admin_key, request["merchant_id"], records, balances)


def main() -> None:
    """Carry out the request on standard input."""
    request = json.loads(sys.stdin.read())
    try:
        answer = asyncio.run(_answer(request))
    except ApiError as error:
        raise SystemExit(str(error)) from None
    Path(request["out"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
