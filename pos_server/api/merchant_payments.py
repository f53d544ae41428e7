"""Handlers of the role `merchant`: payments with a scanned code, cancels and refunds."""

import math
import time
from collections.abc import Callable
from http import HTTPStatus
from uuid import UUID

import asyncpg

from ..core.credentials.api_keys import ApiKey
from ..core.errors import ErrorCode
from ..core.payments.operations import Cancel, CreateRefund, Entry, Scan
from ..core.payments.payment import Payment as StoredPayment
from ..core.payments.payment import Purpose, Status
from ..core.payments.payment import Refund as StoredRefund
from ..core.protocol.notices import terminal_notice
from ..core.protocol.server_messages import (
    TerminalPaymentResult,
)
from ..core.rate_limits import FailureLimit
from ..core.rest.fields import NoParameters, Page, Paging
from ..core.rest.idempotency import derived_id
from ..core.rest.merchant_payments import (
    CancelByReference,
    Payment,
    PaymentCreate,
    PaymentPath,
    PaymentQuery,
    Refund,
    RefundCreate,
)
from ..core.rest.problems import ProblemCode
from ..delivery.publisher import Publisher
from ..ledger import history, reports, stores
from ..ledger.reports import PaymentFilter, Reports
from .support.dispatch import ApiCall, Handler, Reply
from .support.engine_client import EngineClient
from .support.pages import after_cursor, page_by_cursor
from .support.problems import problem
from .support.times import parse_time, rfc3339_of_ms


class MerchantPayments:
    """Handlers of the role `merchant` for payments, cancels and refunds.

    `forged_codes` counts forged codes by terminal number, over WebSockets and REST together; the publisher records
    them. `new_id` makes the id of a tombstone.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        reports: Reports,
        engine: EngineClient,
        publisher: Publisher,
        forged_codes: FailureLimit,
        *,
        new_id: Callable[[], UUID],
    ) -> None:
        self._pool = pool
        self._reports = reports
        self._engine = engine
        self._publisher = publisher
        self._forged_codes = forged_codes
        self._new_id = new_id

    def handlers(self) -> dict[str, Handler]:
        """Return the handlers by the names of PAYMENT_ENDPOINTS."""
        return {
            "createPayment": self.create_payment,
            "listPayments": self.list_payments,
            "getPayment": self.get_payment,
            "cancelPayment": self.cancel_payment,
            "cancelReference": self.cancel_reference,
            "createRefund": self.create_refund,
            "listRefunds": self.list_refunds,
        }

    async def create_payment(self, call: ApiCall[NoParameters, NoParameters, PaymentCreate]) -> Reply:
        merchant_id, currency = call.key.merchant
        body = call.body
        if await stores.find_terminal(self._pool, merchant_id, body.terminal_number) is None:
            raise problem(ProblemCode.NOT_FOUND, "Unknown terminal.", pointer="/terminal_number")
        blocked_s = self._forged_codes.blocked_for_s(body.terminal_number, time.monotonic())
        if blocked_s:
            raise problem(ErrorCode.TOO_MANY_BAD_CODES, retry_after_s=math.ceil(blocked_s))
        scan = Scan(
            payment_id=derived_id(call.key.tenant, call.endpoint.name, call.idempotency_key),
            terminal_number=body.terminal_number,
            merchant_id=merchant_id,
            reference=body.reference,
            amount_minor=body.amount_minor,
            currency=currency,
            code=body.code,
            entry=Entry(body.entry),
            purpose=Purpose(body.purpose),
        )
        outcome = await self._engine.decide(scan)
        status = HTTPStatus.OK if outcome.replayed else HTTPStatus.CREATED
        if outcome.payment.status is Status.PENDING:
            status = HTTPStatus.ACCEPTED
        return Reply(self._payment(outcome.payment, call.language), status)

    async def list_payments(self, call: ApiCall[NoParameters, PaymentQuery, None]) -> Reply:
        merchant_id, _ = call.key.merchant
        query = call.query
        payment_filter = PaymentFilter(
            reference=query.reference,
            store_id=query.store_id,
            terminal_number=query.terminal_number,
            status=query.status,
            since=parse_time("from", query.from_),
            until=parse_time("to", query.to),
        )
        after = after_cursor(query)
        async with self._reports.connection() as connection:
            payments = await reports.list_payments(connection, merchant_id, payment_filter, after, query.limit + 1)
        items = [(self._payment(payment, call.language), cursor) for payment, cursor in payments]
        return Reply(page_by_cursor(Page[Payment], items, query))

    async def get_payment(self, call: ApiCall[PaymentPath, NoParameters, None]) -> Reply:
        payment = await self._find_payment(call.key, call.parameters.payment_id)
        return Reply(self._payment(payment, call.language))

    async def cancel_payment(self, call: ApiCall[PaymentPath, NoParameters, None]) -> Reply:
        # The server makes the ids of REST payments, so no scan with an unknown id can arrive later: no tombstone.
        payment = await self._find_payment(call.key, call.parameters.payment_id)
        return Reply(self._payment(await self._cancel(call.key, payment.payment_id, None), call.language))

    async def cancel_reference(self, call: ApiCall[NoParameters, NoParameters, CancelByReference]) -> Reply:
        return Reply(self._payment(await self._cancel(call.key, None, call.body.reference), call.language))

    async def create_refund(self, call: ApiCall[PaymentPath, NoParameters, RefundCreate]) -> Reply:
        merchant_id, _ = call.key.merchant
        refund_request = CreateRefund(
            refund_id=derived_id(call.key.tenant, call.endpoint.name, call.idempotency_key),
            payment_id=call.parameters.payment_id,
            merchant_id=merchant_id,
            terminal_number=None,
            amount_minor=call.body.amount_minor,
        )
        outcome = await self._engine.refund(refund_request)
        return Reply(_refund(outcome.refund), HTTPStatus.OK if outcome.replayed else HTTPStatus.CREATED)

    async def list_refunds(self, call: ApiCall[PaymentPath, Paging, None]) -> Reply:
        payment = await self._find_payment(call.key, call.parameters.payment_id)
        after = after_cursor(call.query)
        refunds = await reports.list_refunds(self._pool, *payment.key, after, call.query.limit + 1)
        items = [(_refund(refund), cursor) for refund, cursor in refunds]
        return Reply(page_by_cursor(Page[Refund], items, call.query))

    async def _find_payment(self, key: ApiKey, payment_id: UUID) -> StoredPayment:
        merchant_id, _ = key.merchant
        payment = await history.find_payment(self._pool, merchant_id, payment_id, None)
        if isinstance(payment, ErrorCode):
            raise problem(payment)
        return payment

    async def _cancel(self, key: ApiKey, payment_id: UUID | None, reference: str | None) -> StoredPayment:
        merchant_id, currency = key.merchant
        cancel = Cancel(
            terminal_number=None,
            merchant_id=merchant_id,
            currency=currency,
            payment_id=payment_id,
            reference=reference,
            tombstone_id=self._new_id(),
        )
        return (await self._engine.decide(cancel)).payment

    def _payment(self, payment: StoredPayment, language: str) -> Payment:
        # The text is the same as on the terminal's screen.
        notice = terminal_notice(payment, None, language, wallet_online=self._publisher.wallet_online(payment))
        result = notice if isinstance(notice, TerminalPaymentResult) else None
        return Payment(
            payment_id=payment.payment_id,
            version=payment.version,
            terminal_number=payment.terminal_number,
            reference=payment.reference,
            purpose=payment.purpose.value,
            amount_minor=payment.amount_minor or None,
            currency=payment.currency,
            status=payment.status.value,
            decline_code=payment.decline_code.value if payment.decline_code else None,
            retryable=result.retryable if result else False,
            next_step=result.next_step if result else None,
            text=notice.text,
            paid_by=payment.paid_by,
            refunded_minor=payment.refunded_minor,
            refundable_minor=payment.refundable_minor,
            fee_minor=payment.fee_minor,
            shift_id=payment.shift_id,
            changed_at=rfc3339_of_ms(payment.changed_at_ms),
            approved_at=None if payment.approved_at_ms is None else rfc3339_of_ms(payment.approved_at_ms),
            expires_at=_expires_at(payment),
        )


def _expires_at(payment: StoredPayment) -> str | None:
    is_pending = payment.status is Status.PENDING and payment.expires_at_ms is not None
    return rfc3339_of_ms(payment.expires_at_ms or 0) if is_pending else None


def _refund(refund: StoredRefund) -> Refund:
    return Refund(
        refund_id=refund.refund_id,
        payment_id=refund.payment_id,
        terminal_number=refund.terminal_number,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        shift_id=refund.shift_id,
        created_at=rfc3339_of_ms(refund.created_at_ms),
    )
