"""Commands of the operator's office: wallets, terminals, merchants, API keys, terms."""

import argparse
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ..core.credentials.api_keys import Role
from ..core.errors import PosError
from ..core.rest.admin import ApiKeyCreate, MerchantChange
from ..settings import Settings
from .command import AddCommand
from .console import print_out, say
from .ledger_access import on_ledger
from .operator_acts import ACTIONS, act, change_terms, keys_text, new_key, revoke_key

ModelT = TypeVar("ModelT", bound=BaseModel)


def add_office_commands(command: AddCommand) -> None:
    """Add `wallet`, `terminal`, `merchant`, `keys` and `terms`."""
    for kind, actions in ACTIONS.items():
        parser = command(kind, _act, f"{', '.join(actions)}: takes effect with the next payment")
        parser.add_argument("number", type=int, help=f"number of the {kind}")
        parser.add_argument("action", choices=list(actions))
        parser.set_defaults(kind=kind)
    keys = command("keys", _keys, "API keys: create, list, revoke")
    keys.add_argument("action", choices=["create", "list", "revoke"])
    keys.add_argument("id", type=int, nargs="?", help="id of the key to revoke")
    keys.add_argument("--role", type=Role, choices=list(Role), help="role of the key; merchant if --merchant is given")
    keys.add_argument("--merchant", type=int, help="merchant that the key belongs to")
    keys.add_argument("--name", default="back office", help="purpose of the key")
    terms = command("terms", _terms, "show or change a merchant's fee and the end of its business day")
    terms.add_argument("merchant", type=int, help="id of the merchant")
    terms.add_argument("--fee-bps", type=int, help="fee on a sale, in hundredths of a percent")
    terms.add_argument("--fee-fixed", type=int, metavar="MINOR", help="fee on a sale, in minor units")
    terms.add_argument("--time-zone", help="IANA name, such as Europe/Berlin")
    terms.add_argument("--cut-off", metavar="HH:MM", help="end of the business day in that zone, such as 04:00")


def _act(arguments: argparse.Namespace, settings: Settings) -> int:
    print_out(
        on_ledger(settings, lambda connection: act(connection, arguments.kind, arguments.action, arguments.number))
    )
    return 0


def _keys(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.action == "list":
        print_out(on_ledger(settings, keys_text))
    elif arguments.action == "revoke":
        if arguments.id is None:
            raise PosError("the id of the key to revoke is missing. `pos-server keys list` shows all ids")
        print_out(on_ledger(settings, lambda connection: revoke_key(connection, arguments.id)))
    else:
        role = arguments.role or (Role.MERCHANT if arguments.merchant else None)
        if role is None or (role is Role.MERCHANT) != (arguments.merchant is not None):
            raise PosError("the owner of the key is missing. Add --merchant ID, --role issuer or --role admin")
        new = _validated(
            ApiKeyCreate,
            {"merchant_id": "--merchant", "name": "--name"},
            role=role,
            merchant_id=arguments.merchant,
            name=arguments.name,
        )
        key = on_ledger(settings, lambda connection: new_key(connection, new.role, new.merchant_id, new.name))
        say("This key is shown only once. Keep it safe:")
        print_out(key)
    return 0


def _terms(arguments: argparse.Namespace, settings: Settings) -> int:
    change = _validated(
        MerchantChange,
        {
            "fee_bps": "--fee-bps",
            "fee_fixed_minor": "--fee-fixed",
            "time_zone": "--time-zone",
            "cut_off": "--cut-off",
        },
        fee_bps=arguments.fee_bps,
        fee_fixed_minor=arguments.fee_fixed,
        time_zone=arguments.time_zone,
        cut_off=arguments.cut_off,
    )
    print_out(on_ledger(settings, lambda connection: change_terms(connection, arguments.merchant, change)))
    return 0


def _validated(model: type[ModelT], options: Mapping[str, str], **fields: object) -> ModelT:
    """Return the fields as a body of the REST API, so that the same bounds hold. `options` names the options by field.

    Raises PosError, which names the option.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise PosError(f"{options[str(first['loc'][0])]}: {first['msg']}") from None
