"""What an authenticated device says, message by message: its limits, its answers, and its misuse."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from ..core.errors import CloseCode, ErrorCode, MessageError
from ..core.protocol.client_messages import (
    Authenticate,
    History,
    PaymentConfirm,
    PaymentQuery,
    PaymentsRecent,
    PinSet,
    Request,
    ShiftClose,
    ShiftOpen,
    ShiftQuery,
)
from ..core.protocol.codec import encode
from ..core.protocol.notices import ERROR_TEXTS
from ..core.protocol.server_messages import Error, ServerMessage
from ..core.protocol.session import Session
from ..core.rate_limits import TokenBucket
from ..delivery.connections import Connection
from ..ledger.database import DATABASE_AWAY
from ..settings import Settings

log = structlog.get_logger(__name__)

# Called in a task of its own: a coroutine made before that would be left over when the connection ends first.
Work = Callable[[], Awaitable[ServerMessage | None]]

# What reads, some of it much, and is bounded by a rate of its own: a till that asks too often has taken whole networks
# down.
_QUERIES = frozenset({PaymentQuery, PaymentsRecent, History, ShiftOpen, ShiftClose, ShiftQuery})
# What waits for the database or a thread besides the reader.
_SLOW = _QUERIES | {PaymentConfirm, PinSet}

# What a correct client never sends, or not so often: it has little patience to spend on these.
_MISUSE = {ErrorCode.BAD_FIELD, ErrorCode.UNKNOWN_TYPE, ErrorCode.WRONG_CURRENCY, ErrorCode.TOO_MANY_MESSAGES}


class Conversation:
    """One connection's messages after `authenticate`.

    `refuse_early` and `handle` are those of `DeviceEndpoint`: the first answers what there is no room for before it is
    read, the second acts on what was read.
    """

    __slots__ = (
        "_at_work",
        "_connection",
        "_handle",
        "_pace",
        "_patience",
        "_queries",
        "_refuse_early",
        "_session",
        "_settings",
    )

    def __init__(
        self,
        settings: Settings,
        session: Session,
        connection: Connection,
        refuse_early: Callable[[str], str | None],
        handle: Callable[[Request], Work | None],
        now_s: float,
    ) -> None:
        self._settings = settings
        self._session = session
        self._connection = connection
        self._refuse_early = refuse_early
        self._handle = handle
        self._pace = TokenBucket(settings.messages_per_s, settings.messages_burst, now_s)
        self._patience = TokenBucket(settings.bad_messages_per_s, settings.bad_messages_burst, now_s)
        # Made when first needed: ten thousand idle connections need neither.
        self._queries: TokenBucket | None = None
        self._at_work: set[asyncio.Task[None]] | None = None

    def hear(self, text: str) -> Exception | None:
        """`take` for a caller that has no use for exceptions: returns what it raises."""
        try:
            self.take(text)
        except Exception as failure:
            return failure
        return None

    def take(self, text: str) -> None:
        """Act on one message; its answer or error goes to the connection. Raises ConnectionClosing."""
        settings, now_s = self._settings, time.monotonic()
        refusal = self._refuse_early(text)
        if refusal is not None and self._pace.take(now_s):
            self._connection.deliver(refusal)
            return
        try:
            message = self._session.receive(text)
            if type(message) is Authenticate:
                raise AssertionError("authenticated twice")
            if not self._pace.take(now_s):
                raise refused(ErrorCode.TOO_MANY_MESSAGES, message, retry_after_s=1)
            if type(message) in _QUERIES:
                self._queries = self._queries or TokenBucket(settings.queries_per_s, settings.queries_burst, now_s)
                if not self._queries.take(now_s):
                    raise refused(ErrorCode.TOO_MANY_QUERIES, message, retry_after_s=1)
            if type(message) in _SLOW and len(self._at_work or ()) >= settings.connection_requests_max:
                raise refused(ErrorCode.BUSY, message)
            work = self._handle(message)
            if work is not None:
                self._at_work = set() if self._at_work is None else self._at_work
                task = asyncio.create_task(_answer(work, message, self._connection))
                self._at_work.add(task)
                task.add_done_callback(self._at_work.discard)
        except MessageError as error:
            self._connection.deliver(encode(error_message(error)))
            if error.code in _MISUSE and not self._patience.take(now_s):
                raise self._session.close(CloseCode.TOO_MANY_MESSAGES, "too many bad messages") from None

    def end(self) -> None:
        """Nobody waits for what is still at work."""
        for task in self._at_work or ():
            task.cancel()


def refused(
    code: ErrorCode, message: Request, *, field: str | None = None, retry_after_s: int | None = None
) -> MessageError:
    """The error that answers `message`, with the code's usual text."""
    return MessageError(code, ERROR_TEXTS[code], field=field, reply_to=message.message_id, retry_after_s=retry_after_s)


def error_message(error: MessageError) -> Error:
    """What tells the client of an error."""
    return Error(
        reply_to=error.reply_to,
        code=error.code.value,
        message=error.detail,
        field=error.field,
        retryable=error.code.retryable,
        retry_after_s=error.retry_after_s,
    )


def _about(message: Request) -> dict[str, str]:
    payment_id = getattr(message, "payment_id", None)
    return {} if payment_id is None else {"payment_id": str(payment_id)}


async def _answer(work: Work, message: Request, connection: Connection) -> None:
    try:
        answer = await work()
    except MessageError as error:
        answer = error_message(error)
    except DATABASE_AWAY as away:
        log.warning("database_away", during=message.type, cause=type(away).__name__, **_about(message))
        answer = error_message(refused(ErrorCode.BUSY, message))
    except Exception:
        log.exception("request_failed", type=message.type, **_about(message))
        connection.close(CloseCode.UNAVAILABLE, "server fault, come back")
        return
    if answer is not None:
        connection.deliver(encode(answer))
