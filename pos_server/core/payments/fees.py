"""What a merchant pays for a sale, in minor units. Rounding is part of the contract with the merchant."""

_BPS = 10_000


def fee_of(amount_minor: int, fee_bps: int, fee_fixed_minor: int) -> int:
    """The fee of a sale: `fee_bps` hundredths of a percent, half a minor unit rounded up, and a fixed part.

    Never more than the sale itself.
    """
    return min(amount_minor, (amount_minor * fee_bps + _BPS // 2) // _BPS + fee_fixed_minor)


def fee_returned(fee_minor: int, amount_minor: int, refunded_minor: int) -> int:
    """How much of a fee has gone back once `refunded_minor` of `amount_minor` are refunded: its share, rounded down.

    It counts from the whole, not from each refund, so that many small refunds return what one large one would, and the
    last one returns the rest.
    """
    return fee_minor * refunded_minor // amount_minor
