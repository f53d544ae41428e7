"""Money that moves between a wallet and a merchant: the wallet's row and the transfer, always both."""

from dataclasses import replace
from uuid import UUID

from .book import Transfer, TransferKind, Wallet
from .desk import Desk
from .payments import Payment


def charge(desk: Desk, payment: Payment, wallet: Wallet, *, pin_free: bool) -> None:
    """The money of an approved payment goes from its wallet (of `today`) to the merchant, and counts for that day."""
    amount_minor = payment.amount_minor
    desk.entries.put_wallet(
        replace(
            wallet,
            balance_minor=wallet.balance_minor - amount_minor,
            day_spent_minor=wallet.day_spent_minor + amount_minor,
            day_pin_free_minor=wallet.day_pin_free_minor + (amount_minor if pin_free else 0),
            day_pin_free_count=wallet.day_pin_free_count + (1 if pin_free else 0),
            version=wallet.version + 1,
        )
    )
    desk.entries.post(
        Transfer(
            kind=TransferKind.PAYMENT,
            source_id=payment.payment_id,
            debit_account_id=wallet.account_id,
            credit_account_id=_merchant_account_id(desk, payment),
            amount_minor=amount_minor,
            currency=payment.currency,
            wallet_number=wallet.number,
        )
    )


def give_back(desk: Desk, payment: Payment, kind: TransferKind, source_id: UUID, amount_minor: int) -> Wallet:
    """Money returns from the merchant to the wallet, whatever has become of the wallet since; the wallet afterwards.

    A cancel on the day of the payment gives the day's allowance back too; a refund does not.
    """
    wallet = _wallet_of(desk, payment)
    day_spent_minor = wallet.day_spent_minor
    if kind is TransferKind.CANCEL and (payment.approved_at_ms or 0) >= wallet.day_start_ms:
        day_spent_minor = max(0, day_spent_minor - amount_minor)
    wallet = replace(
        wallet,
        balance_minor=wallet.balance_minor + amount_minor,
        day_spent_minor=day_spent_minor,
        version=wallet.version + 1,
    )
    desk.entries.put_wallet(wallet)
    desk.entries.post(
        Transfer(
            kind=kind,
            source_id=source_id,
            debit_account_id=_merchant_account_id(desk, payment),
            credit_account_id=wallet.account_id,
            amount_minor=amount_minor,
            currency=payment.currency,
            wallet_number=wallet.number,
        )
    )
    return wallet


def _merchant_account_id(desk: Desk, payment: Payment) -> int:
    return desk.book.tills[payment.terminal_number].merchant_account_id


def _wallet_of(desk: Desk, payment: Payment) -> Wallet:
    if payment.wallet_number is None:
        raise AssertionError(f"payment {payment.payment_id} moves money and has no wallet")
    return desk.book.wallets[payment.wallet_number]
