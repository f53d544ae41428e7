"""The operator's commands take effect with the next payment."""

from pathlib import Path

import asyncpg
import pytest

from pos_server.cli.command import EXIT_ERROR
from pos_server.cli.operator_acts import ACTIONS, NotFound, act, keys_text, new_key, revoke_key
from pos_server.core.credentials.api_keys import Role
from pos_server.server import RunningServer
from tests.cli.conftest import RunHere
from tests.end_to_end.server_process import pos_server
from tests.gateway.test_pin import pin_message
from tests.support import Shop, ask, logged_in, scan_message


@pytest.mark.asyncio
async def test_block_and_unblock(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    numbers = {
        "wallet": shop.wallets[0].device.number,
        "terminal": shop.terminals[0].device.number,
        "merchant": shop.merchant_id,
    }
    async with logged_in(server.url, shop.terminals[0]) as till:
        for kind, block, unblock, code in (
            ("wallet", "freeze", "thaw", "wallet_frozen"),
            ("wallet", "close", "thaw", "wallet_closed"),
            ("terminal", "disable", "enable", "terminal_disabled"),
            ("merchant", "deactivate", "activate", "merchant_inactive"),
        ):
            assert await act(admin, kind, block, numbers[kind]) == f"{kind} {numbers[kind]}: {block} done"
            assert (await ask(till, scan_message(shop.wallets[0].code())))["decline_code"] == code
            await act(admin, kind, unblock, numbers[kind])
            assert (await ask(till, scan_message(shop.wallets[0].code(), amount_minor=1)))["status"] == "approved"


@pytest.mark.asyncio
async def test_reset_pin_removes_the_pin(server: RunningServer, shop: Shop, admin: asyncpg.Connection) -> None:
    async with logged_in(server.url, shop.wallets[0]) as phone:
        first = pin_message("274951")
        assert (await ask(phone, first))["type"] == "pin.changed"
        await act(admin, "wallet", "reset-pin", shop.wallets[0].device.number)
        # The repeated request sets the PIN again, because the reset came after the first one.
        assert (await ask(phone, first))["type"] == "pin.changed"
        assert (await ask(phone, pin_message("860317")))["code"] == "pin_wrong"


@pytest.mark.parametrize(("kind", "action"), [(kind, action) for kind in ACTIONS for action in ACTIONS[kind]])
@pytest.mark.asyncio
async def test_an_unknown_number_is_not_found(kind: str, action: str, admin: asyncpg.Connection) -> None:
    with pytest.raises(NotFound, match=f"there is no {kind} 77"):
        await act(admin, kind, action, 77)


@pytest.mark.asyncio
async def test_keys(shop: Shop, admin: asyncpg.Connection) -> None:
    assert (await keys_text(admin)).endswith("pos-server keys create --role admin` creates one")
    key = await new_key(admin, Role.MERCHANT, shop.merchant_id, "till roll")
    assert "active   merchant 1 Corner Canteen: till roll, created 20" in await keys_text(admin)
    assert key not in await keys_text(admin)
    assert await revoke_key(admin, 1) == "API key 1 revoked"
    assert "ended" in await keys_text(admin)
    with pytest.raises(NotFound):
        await revoke_key(admin, 2)
    with pytest.raises(NotFound):
        await new_key(admin, Role.MERCHANT, 77, "x")


@pytest.mark.asyncio
async def test_a_merchants_terms(dsn: str, shop: Shop, admin: asyncpg.Connection) -> None:
    terms = ("--fee-bps", "150", "--fee-fixed", "2", "--time-zone", "Asia/Shanghai", "--cut-off", "04:00")
    changed = await pos_server("terms", str(shop.merchant_id), *terms, POS_DATABASE_URL=dsn)
    line = "merchant 1 Corner Canteen: fee 1.5% and 0.02 EUR per sale, the business day ends at 04:00 Asia/Shanghai\n"
    assert (changed.status, changed.out) == (0, line), changed.err
    assert (await pos_server("terms", "1", POS_DATABASE_URL=dsn)).out == line
    for wrong, text in (
        (("1", "--time-zone", "Nowhere/Land"), "there is no time zone Nowhere/Land"),
        (("77",), "there is no merchant 77"),
    ):
        result = await pos_server("terms", *wrong, POS_DATABASE_URL=dsn)
        assert (result.status, text in result.err) == (3, True), result.err
    assert (await pos_server("terms", "1", POS_DATABASE_URL=dsn)).out == line


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        (("--fee-bps", "10001"), "--fee-bps: Input should be less than or equal to 10000\n"),
        (("--fee-fixed", "-1"), "--fee-fixed: Input should be greater than or equal to 0\n"),
        (("--fee-fixed", str(2**53)), "--fee-fixed: Input should be less than or equal to 9007199254740991\n"),
        (("--cut-off", "04:00+02:00"), "--cut-off: String should match pattern"),
        (("--cut-off", "4"), "--cut-off: String should match pattern"),
        (("--time-zone", "x" * 65), "--time-zone: String should have at most 64 characters\n"),
    ],
)
def test_terms_out_of_bounds_are_refused_before_a_database_is_opened(
    terms: tuple[str, ...], text: str, tmp_path: Path, run_here: RunHere
) -> None:
    refused = run_here("terms", 1, *terms, "--data-dir", tmp_path)
    assert (refused.status, text in refused.err) == (EXIT_ERROR, True), refused
    assert list(tmp_path.iterdir()) == []
