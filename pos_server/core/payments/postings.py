"""Movements of money. Each one changes the wallet's row and appends the matching transfers."""

from uuid import UUID

from msgspec.structs import replace

from .batch import Batch
from .fees import returned_fee
from .payment import SALE, TOP_UP, WITHDRAWAL, Payment
from .snapshot import HouseAccount, Transfer, TransferKind, Wallet

_KINDS = {
    SALE: TransferKind.PAYMENT,
    TOP_UP: TransferKind.TOP_UP,
    WITHDRAWAL: TransferKind.WITHDRAWAL,
}


def transfer_money(batch: Batch, payment: Payment, wallet: Wallet, *, pin_free: bool) -> None:
    """Transfer the money of an approved payment out of its wallet, or into it for a top-up.

    `wallet` has the day counters of the current day; outgoing amounts are added to them. The fee of a sale is
    transferred from the merchant to the house in the same batch.
    """
    amount_minor = payment.amount_minor
    if payment.purpose is TOP_UP:
        wallet = replace(wallet, balance_minor=wallet.balance_minor + amount_minor, version=wallet.version + 1)
    else:
        wallet = replace(
            wallet,
            balance_minor=wallet.balance_minor - amount_minor,
            day_spent_minor=wallet.day_spent_minor + amount_minor,
            day_pin_free_minor=wallet.day_pin_free_minor + (amount_minor if pin_free else 0),
            day_pin_free_count=wallet.day_pin_free_count + (1 if pin_free else 0),
            version=wallet.version + 1,
        )
    batch.put_wallet(wallet)
    debit, credit = _sides(batch, payment, wallet)
    _post(batch, payment, _KINDS[payment.purpose], payment.payment_id, debit, credit, amount_minor)
    if payment.fee_minor:
        fees = _house(batch, payment, HouseAccount.FEES)
        _post(batch, payment, TransferKind.FEE, payment.payment_id, credit, fees, payment.fee_minor)


def reverse_payment(batch: Batch, payment: Payment) -> None:
    """Transfer an approved payment's money and fee back in full, whatever the wallet's status is now.

    On the day of the payment, its amount is also subtracted from the wallet's daily spending.
    """
    wallet = _wallet_of(batch, payment)
    amount_minor, day_spent_minor = payment.amount_minor, wallet.day_spent_minor
    if payment.purpose is not TOP_UP and (payment.approved_at_ms or 0) >= wallet.day_start_ms:
        day_spent_minor = max(0, day_spent_minor - amount_minor)
    change_minor = -amount_minor if payment.purpose is TOP_UP else amount_minor
    batch.put_wallet(
        replace(
            wallet,
            balance_minor=wallet.balance_minor + change_minor,
            day_spent_minor=day_spent_minor,
            version=wallet.version + 1,
        )
    )
    debit, credit = _sides(batch, payment, wallet)
    _post(batch, payment, TransferKind.CANCEL, payment.payment_id, credit, debit, amount_minor)
    _return_fee(batch, payment, payment.payment_id, payment.fee_minor)


def refund_money(batch: Batch, payment: Payment, refund_id: UUID, amount_minor: int) -> Wallet:
    """Transfer part of a sale's money back to the wallet and the same share of the fee back to the merchant.

    Returns the new wallet. The wallet's daily spending is not reduced.
    """
    wallet = _wallet_of(batch, payment)
    wallet = replace(wallet, balance_minor=wallet.balance_minor + amount_minor, version=wallet.version + 1)
    batch.put_wallet(wallet)
    debit, credit = _sides(batch, payment, wallet)
    _post(batch, payment, TransferKind.REFUND, refund_id, credit, debit, amount_minor)
    previous_fee = returned_fee(payment.fee_minor, payment.amount_minor, payment.refunded_minor)
    total_fee = returned_fee(payment.fee_minor, payment.amount_minor, payment.refunded_minor + amount_minor)
    _return_fee(batch, payment, refund_id, total_fee - previous_fee)
    return wallet


def _return_fee(batch: Batch, payment: Payment, source_id: UUID, amount_minor: int) -> None:
    if amount_minor:
        merchant = batch.acceptor_of(payment).merchant_account_id
        fees = _house(batch, payment, HouseAccount.FEES)
        _post(batch, payment, TransferKind.FEE_RETURN, source_id, fees, merchant, amount_minor)


def _sides(batch: Batch, payment: Payment, wallet: Wallet) -> tuple[int, int]:
    """Return the debit account and the credit account of an approved payment."""
    if payment.purpose is SALE:
        return wallet.account_id, batch.acceptor_of(payment).merchant_account_id
    if payment.purpose is TOP_UP:
        return _house(batch, payment, HouseAccount.CASH_IN), wallet.account_id
    return wallet.account_id, _house(batch, payment, HouseAccount.PAYOUT)


def _house(batch: Batch, payment: Payment, account: HouseAccount) -> int:
    return batch.snapshot.house[account, payment.currency]


def _post(
    batch: Batch, payment: Payment, kind: TransferKind, source_id: UUID, debit: int, credit: int, amount_minor: int
) -> None:
    if payment.wallet_number is None:
        raise AssertionError(f"payment {payment.payment_id} moves money but has no wallet")
    batch.post(
        Transfer(
            kind=kind,
            source_id=source_id,
            debit_account_id=debit,
            credit_account_id=credit,
            amount_minor=amount_minor,
            currency=payment.currency,
            wallet_number=payment.wallet_number,
            merchant_id=payment.merchant_id,
        )
    )


def _wallet_of(batch: Batch, payment: Payment) -> Wallet:
    if payment.wallet_number is None:
        raise AssertionError(f"payment {payment.payment_id} moves money but has no wallet")
    return batch.snapshot.wallets[payment.wallet_number]
