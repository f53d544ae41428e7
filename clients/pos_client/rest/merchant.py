"""Methods of the role `merchant`: stores, terminals, payments, shifts and statements."""

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
    """Endpoints for API keys of the role `merchant`, for the key's own merchant."""

    async def create_store(self, body: StoreCreate, *, idempotency_key: str | None = None) -> Store:
        """Create a store."""
        return await self.call(_OF["createStore"], Store, body=body, idempotency_key=idempotency_key)

    def list_stores(self) -> AsyncIterator[Store]:
        """Iterate over all stores, oldest first."""
        return self.items(_OF["listStores"], Page[Store])

    async def get_store(self, store_id: int) -> Store:
        """Return a store."""
        return await self.call(_OF["getStore"], Store, StorePath(store_id=store_id))

    async def create_terminal(self, body: TerminalCreate, *, idempotency_key: str | None = None) -> TerminalCreated:
        """Create a terminal and its activation code."""
        return await self.call(_OF["createTerminal"], TerminalCreated, body=body, idempotency_key=idempotency_key)

    def list_terminals(self, query: TerminalQuery | None = None) -> AsyncIterator[Terminal]:
        """Iterate over all terminals, or those of a store, oldest first."""
        return self.items(_OF["listTerminals"], Page[Terminal], query=query)

    async def get_terminal(self, terminal_number: int) -> Terminal:
        """Return a terminal."""
        return await self.call(_OF["getTerminal"], Terminal, TerminalPath(terminal_number=terminal_number))

    async def change_terminal(self, terminal_number: int, body: TerminalChange) -> Terminal:
        """Disable or enable a terminal."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(_OF["changeTerminal"], Terminal, path, body=body)

    async def create_terminal_activation(
        self, terminal_number: int, *, idempotency_key: str | None = None
    ) -> TerminalActivation:
        """Create a new activation code. The previous key keeps working until the code is used."""
        path = TerminalPath(terminal_number=terminal_number)
        return await self.call(
            _OF["createTerminalActivation"], TerminalActivation, path, idempotency_key=idempotency_key
        )

    async def create_payment(self, body: PaymentCreate, *, idempotency_key: str | None = None) -> Payment:
        """Create a payment from a scanned code. A pending one waits for the customer's PIN: poll `get_payment`."""
        return await self.call(_OF["createPayment"], Payment, body=body, idempotency_key=idempotency_key)

    def list_payments(self, query: PaymentQuery | None = None) -> AsyncIterator[Payment]:
        """Iterate over payments, latest change first, without archived ones.

        A payment that changes during the iteration moves to the front.
        """
        return self.items(_OF["listPayments"], Page[Payment], query=query)

    async def get_payment(self, payment_id: UUID) -> Payment:
        """Return a payment."""
        return await self.call(_OF["getPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_payment(self, payment_id: UUID) -> Payment:
        """Cancel a payment in full."""
        return await self.call(_OF["cancelPayment"], Payment, PaymentPath(payment_id=payment_id))

    async def cancel_reference(self, body: CancelByReference) -> Payment:
        """Cancel an order, whether or not its payment has arrived. It can no longer be paid."""
        return await self.call(_OF["cancelReference"], Payment, body=body)

    async def create_refund(
        self, payment_id: UUID, body: RefundCreate, *, idempotency_key: str | None = None
    ) -> Refund:
        """Refund a sale in part or in full."""
        path = PaymentPath(payment_id=payment_id)
        return await self.call(_OF["createRefund"], Refund, path, body=body, idempotency_key=idempotency_key)

    def list_refunds(self, payment_id: UUID) -> AsyncIterator[Refund]:
        """Iterate over the refunds of a payment, oldest first."""
        return self.items(_OF["listRefunds"], Page[Refund], PaymentPath(payment_id=payment_id))

    def list_shifts(self, query: ShiftQuery | None = None) -> AsyncIterator[Shift]:
        """Iterate over shifts, last opened first."""
        return self.items(_OF["listShifts"], Page[Shift], query=query)

    async def get_shift(self, shift_id: UUID) -> ShiftReport:
        """Return a shift with its report: an X-report while it is open, then its Z-report."""
        return await self.call(_OF["getShift"], ShiftReport, ShiftPath(shift_id=shift_id))

    def list_statements(self, query: StatementQuery | None = None) -> AsyncIterator[Statement]:
        """Iterate over the statements of settled business days, latest first."""
        return self.items(_OF["listStatements"], Page[Statement], query=query)

    async def get_statement(self, business_date: str) -> Statement:
        """Return the statement of a business day."""
        return await self.call(_OF["getStatement"], Statement, StatementPath(business_date=business_date))

    async def get_balance(self) -> MerchantBalance:
        """Return the merchant's current balance."""
        return await self.call(_OF["getBalance"], MerchantBalance)
