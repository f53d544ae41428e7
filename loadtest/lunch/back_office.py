"""Open the stores at a running server and check its books at the end, through the REST API.

A process of its own, because locust's processes use gevent and the API client uses asyncio. It reads JSON from standard
input and writes its answer to the file named there. That file contains keys of devices, so its directory is private to
the caller. The environment variable ADMIN_KEY_VARIABLE holds the admin key.
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
# The same few customers pay many times on this day.
_NO_DAY_LIMITS = WalletLimitsReplace(
    day_minor_max=MAX_AMOUNT_MINOR, pin_free_day_count_max=MAX_AMOUNT_MINOR, pin_free_day_minor_max=MAX_AMOUNT_MINOR
)
_PROBLEMS_SHOWN = 10


def run_back_office(request: dict[str, Any]) -> dict[str, Any]:
    """Run this module as a process and return its answer. Raises SystemExit if it fails."""
    with TemporaryDirectory(prefix="pos-store-") as folder:
        path = Path(folder) / "answer.json"  # in a directory of mode 0700 that is deleted with the block
        process = subprocess.run(
            [sys.executable, "-m", "loadtest.lunch.back_office"],
            input=json.dumps(request | {"out": str(path)}),
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        if process.returncode:
            raise SystemExit("the back office failed: see its error above")
        answer: dict[str, Any] = json.loads(path.read_text())
        return answer


async def open_stores(url: str, admin_key: str, stores: int, tills: int, wallets: int) -> dict[str, Any]:
    """Open `stores` stores of one merchant, with `tills` tills each and `wallets` wallets per till.

    Returns the merchant's id, the lanes, and the devices with their keys, as plain data.
    """
    lanes = lanes_of(stores, tills, wallets)
    merchant_id = await new_merchant(url, admin_key, _NAME)
    async with back_offices(url, admin_key, merchant_id, f"opening of {_NAME}") as (issuer, merchant):
        store_ids = [
            (await merchant.create_store(StoreCreate(name=f"Store {number + 1}"))).store_id for number in range(stores)
        ]

        async def till(lane: Lane) -> dict[str, Any]:
            name = f"Till {lane.till % tills + 1}"
            return _device_data(await new_till(url, merchant, store_ids[lane.store], name))

        async def customer(index: int) -> dict[str, Any]:
            poor = is_poor(index, wallets)
            balance_minor = POOR_BALANCE_MINOR if poor else BALANCE_MINOR
            wallet = await new_wallet(url, issuer, merchant_id, f"Customer {index + 1}", balance_minor)
            limits = await issuer.get_wallet_limits(wallet.number)
            await issuer.replace_wallet_limits(wallet.number, _NO_DAY_LIMITS, if_match=limits.etag or "")
            return _device_data(wallet) | {"balance_minor": balance_minor, "is_poor": poor}

        return {
            "merchant_id": merchant_id,
            "lanes": [asdict(lane) for lane in lanes],
            "tills": await map_in_chunks(lanes, till),
            "wallets": await map_in_chunks(range(len(lanes) * wallets), customer),
        }


def _device_data(device: Credentials) -> dict[str, Any]:
    key = base64.b64encode(device.device_key).decode()
    return {"kind": device.kind, "number": device.number, "slot": device.slot, "kid": device.kid, "key": key}


async def check_books(
    url: str, admin_key: str, merchant_id: int, records: Sequence[PaymentRecord], balances: dict[int, int]
) -> dict[str, Any]:
    """Compare the ledger's payments and balances with the tills' records. `balances` are the initial ones.

    Each payment that a till started must be in the ledger exactly once, with the outcome that the till knows. There
    must be no other payments.
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
        final_balances = dict(await map_in_chunks(sorted(balances), lambda number: _balance(issuer, number)))
    problems = payment_problems(records, stored)
    problems += [
        f"wallet {number} holds {final_balances[number]}, not {expected_minor}"
        for number, expected_minor in balances_after(balances, records).items()
        if final_balances[number] != expected_minor
    ]
    return {
        "payments": len(stored),
        "wallets": len(final_balances),
        "problems": len(problems),
        "first": problems[:_PROBLEMS_SHOWN],
    }


async def _balance(issuer: ApiClient, number: int) -> tuple[int, int]:
    return number, (await issuer.get_wallet(number)).balance_minor


def payment_problems(records: Iterable[PaymentRecord], stored: Iterable[PaymentRecord]) -> list[str]:
    """Return the payments that are not in both lists exactly once, with the same outcome."""
    at_tills, in_ledger = Counter(map(_outcome, records)), Counter(map(_outcome, stored))
    return [f"only the till knows: {payment}" for payment in (at_tills - in_ledger).elements()] + [
        f"only the ledger knows: {payment}" for payment in (in_ledger - at_tills).elements()
    ]


def _outcome(payment: PaymentRecord) -> tuple[str, int, str, str | None, int]:
    return payment.payment_id, payment.amount_minor, payment.status, payment.decline_code, payment.refunded_minor


def balances_after(balances: dict[int, int], records: Iterable[PaymentRecord]) -> dict[int, int]:
    """Return the balance of each wallet after these payments."""
    paid_minor: defaultdict[int, int] = defaultdict(int)
    for payment in records:
        if payment.status == Status.APPROVED:
            paid_minor[payment.wallet_number] += payment.amount_minor - payment.refunded_minor
    return {number: balance_minor - paid_minor[number] for number, balance_minor in balances.items()}


async def _answer(request: dict[str, Any]) -> dict[str, Any]:
    admin_key = os.environ[ADMIN_KEY_VARIABLE]
    if request["action"] == "open":
        return await open_stores(request["url"], admin_key, request["stores"], request["tills"], request["wallets"])
    records = [PaymentRecord(*values) for values in request["payments"]]
    balances = {int(number): balance_minor for number, balance_minor in request["balances"].items()}
    return await check_books(request["url"], admin_key, request["merchant_id"], records, balances)


def main() -> None:
    """Process the request on standard input."""
    request = json.loads(sys.stdin.read())
    try:
        answer = asyncio.run(_answer(request))
    except ApiError as error:
        raise SystemExit(str(error)) from None
    Path(request["out"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
