"""Guards the site's own risk hook: it is somebody else's code, and it runs inside a decision."""

import structlog

from ..core.payments.operations import Scan
from ..core.payments.rules import Risk, RiskHook
from ..core.payments.snapshot import Wallet

log = structlog.get_logger(__name__)


def guarded(hook: RiskHook) -> RiskHook:
    """Return a hook that asks for the PIN where `hook` fails: neither a free pass nor a closed shop."""

    def guarded_hook(scan: Scan, wallet: Wallet) -> Risk:
        try:
            risk = hook(scan, wallet)
            return risk if type(risk) is Risk else Risk(risk)
        except Exception:
            log.exception("risk_hook_failed", payment_id=str(scan.payment_id), merchant_id=scan.merchant_id)
            return Risk.ASK_PIN

    return guarded_hook
