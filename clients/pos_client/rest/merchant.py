"""A merchant's part of the REST API as methods: stores, terminals, payments, shifts, statements."""

from collections.abc import AsyncIterator
from uuid import UUID

from pos_server.core.rest.fields import Page
from pos_server.core.rest.merchant_payments import (
    PAYMENT_ENDPOINTS,
    CancelByReference,
    Payment,
    PaymentCreate,
    PaymentPath,
    PaymentQuery,
    Refund,
    RefundCreate,
)
from pos_server.core.rest.merchant_reports import (
    REPORT_ENDPOINTS,
    MerchantBalance,
    Shift,
    ShiftPath,
    ShiftQuery,
    ShiftReport,
    Statement,
    StatementPath,
    StatementQuery,
)
from pos_server.core.rest.merchant_stores import (
    STORE_ENDPOINTS,
    Store,
    StoreCreate,
    StorePath,
    Terminal,
    TerminalActivation,
    TerminalChange,
    TerminalCreate,
    TerminalCreated,
    TerminalPath,
    TerminalQuery,
)

from .calls import ApiCalls

_OF = {endpoint.name: endpoint for endpoint in (*REPORT_ENDPOINTS, *PAYMENT_ENDPOINTS, *STORE_ENDPOINTS)}


class MerchantCalls(ApiCalls):
    """What a key of the role `merchant` may do, with what is its merchant's."""

    async def create_store(self, body: StoreCreate, *, idempotency_key: str | None = None) -> Store:
        """Make a store."""
        return await self.call(_OF["createStore"], Store, body=body, idempotency_key=idempotency_key)

    def list_stores(self) -> AsyncIterator[Store]:
        """All stores, oldest first."""
        return self.items(_OF["listStores"], Page[Store])

    async def get_store(self, store_id: int) -> Store:
        """A store."""
        return await self.call(_OF["getStore"], Store, StorePath(store_id=store_id))

    async def create_terminal(self, body: TerminalCreate, *, idempotency_key: str | None = None) -> TerminalCreated:
        """Make a terminal, with the code that makes a device it."""
        return await self.call(_OF["createTerminal"], TerminalCreated, body=body, idempotency_key=idempotency_key)

    def list_terminals(self, query: TerminalQuery | None = None) -> AsyncIterator[Terminal]:
        """All terminals, or those of a store, oldest first."""
        return self.items(_OF["listTerminals"], Page[Terminal], query=query)

    async def get_terminal(self, terminal_number: int) -> Terminal:
        """A terminal."""
        return await self.call(_OF["getTerminal"], Terminal, TerminalPath(terminal_number=terminal_number))

    async def change_terminal(self, terminal_number: int, body: TerminalChange) -> Terminal:
        """Disable a terminal, or enable it again."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(_OF["changeTerminal"], Terminal, path, body=body)

    async def create_terminal_activation(
        self, terminal_number: int, *, idempotency_key: str | None = None
    ) -> TerminalActivation:
        """Make a new activation code: the key of before works until the code is used."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(
            _OF["createTerminalActivation"], TerminalActivation, path, idempotency_key=idempotency_key
        )

    async def create_payment(self, body: PaymentCreate, *, idempotency_key: str | None = None) -> Payment:
        """Take a payment with a scanned code. 202: it waits for the customer's PIN, so ask later."""
        return await self.call(_OF["createPayment"], Payment, body=body, idempotency_key=idempotency_key)

    def list_payments(self, query: PaymentQuery | None = None) -> AsyncIterator[Payment]:
        """Payments, latest change first. What changes meanwhile moves to the front; archived ones are left out."""
        return self.items(_OF["listPayments"], Page[Payment], query=query)

    async def get_payment(self, payment_id: UUID) -> Payment:
        """A payment."""
        return await self.call(_OF["getPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_payment(self, payment_id: UUID) -> Payment:
        """Take a payment back whole."""
        return await self.call(_OF["cancelPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_reference(self, body: CancelByReference) -> Payment:
        """Take an order back, whether its payment has arrived or not: it cannot be paid any more."""
        return await self.call(_OF["cancelReference"], Payment, body=body)

    async def create_refund(
        self, payment_id: UUID, body: RefundCreate, *, idempotency_key: str | None = None
    ) -> Refund:
        """Give some or all of a sale back."""
        path = PaymentPath(payment_id=payment_id)
        return await self.call(_OF["createRefund"], Refund, path, body=body, idempotency_key=idempotency_key)

    def list_refunds(self, payment_id: UUID) -> AsyncIterator[Refund]:
        """What was given back on a payment, oldest first."""
        return self.items(_OF["listRefunds"], Page[Refund], PaymentPath(payment_id=payment_id))

    def list_shifts(self, query: ShiftQuery | None = None) -> AsyncIterator[Shift]:
        """Shifts, opened last first."""
        return self.items(_OF["listShifts"], Page[Shift], query=query)

    async def get_shift(self, shift_id: UUID) -> ShiftReport:
        """A shift and its report: the X-report while it is open, then the Z-report."""
        return await self.call(_OF["getShift"], ShiftReport, ShiftPath(shift_id=shift_id))

    def list_statements(self, query: StatementQuery | None = None) -> AsyncIterator[Statement]:
        """Statements of settled business days, latest first."""
        return self.items(_OF["listStatements"], Page[Statement], query=query)

    async def get_statement(self, business_date: str) -> Statement:
        """The statement of a business day."""
        return await self.call(_OF["getStatement"], Statement, StatementPath(business_date=business_date))

    async def get_balance(self) -> MerchantBalance:
        """What the merchant holds now, exact at this moment."""
        return await self.call(_OF["getBalance"], MerchantBalance)
