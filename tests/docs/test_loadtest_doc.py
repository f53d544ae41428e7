"""docs/loadtest.md: options with defaults, mix, hours, steps and objectives match the code."""

import argparse
import re
from importlib.util import find_spec

from loadtest.lunch import plan
from loadtest.lunch.__main__ import option_parser
from loadtest.lunch.device import NOTICE_TIMEOUT_S, OUTCOME_TIMEOUT_S
from pos_server.core.credentials.payment_code import STEP_S
from tests.docs.documents import read

DOC = read("loadtest.md")
TEXT = " ".join(DOC.text.split())


def documented_steps() -> set[str]:
    """Return the names of the steps in the table, which has several per row."""
    rows = DOC.section("What is measured").table("Step", "From", "Until")
    return {name.strip(" `") for row in rows for name in row["Step"].split(",")}


def test_options_match_the_command() -> None:
    rows = {row["Option"]: row["Default"] for row in DOC.section("Run it").table("Option", "Meaning", "Default")}
    actions = [action for action in option_parser()._actions if not isinstance(action, argparse._HelpAction)]
    defaults = {action.option_strings[0]: action.default for action in actions} | {"--admin-key": None}
    assert rows == {name: "none" if default is None else str(default) for name, default in defaults.items()}


def test_the_mix_matches_the_plan() -> None:
    rows = DOC.section("The day").table("Flow", "Customers", "Steps and expected outcome")
    assert {row["Flow"]: int(row["Customers"]) for row in rows} == {str(flow): n for flow, n in plan.MIX.items()}


def test_hours_and_think_times_match_the_plan() -> None:
    assert [hours.open_share for hours in plan.DAY] == [0.4, 1.0, 0.5]
    assert "40% of them in the morning, all in the lunch rush, half in the evening" in TEXT
    for words, (least_s, most_s) in {
        "goods are scanned": plan.GOODS_S,
        "bagged": plan.BAG_S,
        "the next customer comes": plan.NEXT_CUSTOMER_S,
    }.items():
        assert f"{words} ({least_s:g} to {most_s:g} s)" in TEXT
    seconds = sum(sum(times) / 2 for times in (plan.GOODS_S, plan.BAG_S, plan.NEXT_CUSTOMER_S))
    assert f"a payment about every {seconds:.0f} s" in TEXT
    assert f"starts with {plan.BALANCE_MINOR / 100:,.2f}" in TEXT


def test_bounds_and_objectives_match_the_code() -> None:
    assert f"no message within {NOTICE_TIMEOUT_S:g} s ({OUTCOME_TIMEOUT_S:g} s when" in TEXT
    assert f"could not be sent for {STEP_S} s" in TEXT
    defaults = vars(option_parser().parse_args([]))
    assert f"At most {defaults['error_share_max']:.1%} of the steps" in TEXT
    assert f"is at most {defaults['p99_ms_max']:g} ms" in TEXT


def test_every_command_names_an_existing_module() -> None:
    for module in re.findall(r"python -m (loadtest[\w.]*)", DOC.text):
        package = find_spec(module)
        assert package is not None, module
        assert package.submodule_search_locations is None or find_spec(f"{module}.__main__"), module
