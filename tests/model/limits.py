"""Units of time in ms, and the limits of the server that the model is compared with."""

SECOND = 1_000
DAY = 86_400 * SECOND
STEP = 30 * SECOND

# Limits of the server. They are low, so that a short run reaches each of them.
CONFIRMATION = 60 * SECOND
CANCEL_WINDOW = 24 * 3_600 * SECOND
REFUND_WINDOW = 5 * DAY
PIN_LOCK = 600 * SECOND
REFUNDS_MAX = 3
WRONG_PINS_OF_A_PAYMENT = 2
WRONG_PINS_OF_A_WALLET = 3
EXPIRED_STEPS = 4
PER_CURRENCY = {
    "EUR": {
        "payment": 4_000, "day": 6_000, "free": 1_000, "free_count": 3, "free_day": 2_500,
        "top_up": 3_000, "balance": 13_000,
    },
    "JPY": {
        "payment": 3_000, "day": 4_000, "free": 500, "free_count": 2, "free_day": 800,
        "top_up": 2_000, "balance": 6_000,
    },
}  # fmt: skip
# Amounts for which the risk hook rejects or requires a PIN.
REJECTED_AMOUNT, ASKED_AMOUNT = 666, 777
