"""Fees that a merchant pays for sales, in minor units. The rounding is part of the contract with the merchant."""

_BPS = 10_000


def sale_fee(amount_minor: int, fee_bps: int, fee_fixed_minor: int) -> int:
    """Return the fee of a sale: `fee_bps` basis points, rounded half up, plus a fixed part.

    A fee never exceeds the amount of the sale.
    """
    return min(amount_minor, (amount_minor * fee_bps + _BPS // 2) // _BPS + fee_fixed_minor)


def returned_fee(fee_minor: int, amount_minor: int, refunded_minor: int) -> int:
    """Return the part of a fee that is returned in total once `refunded_minor` of `amount_minor` is refunded.

    It is the refunded share of the fee, rounded down. It depends on the total refunded, not on single refunds, so that
    many small refunds return as much as one large refund, and the last refund returns the rest.
    """
    return fee_minor * refunded_minor // amount_minor
