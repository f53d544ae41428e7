"""An authenticated device's messages, one by one: their limits, their answers, and misuse."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from ..core.errors import CloseCode, ErrorCode, MessageError
from ..core.protocol.client_messages import Authenticate, PinSet, Request, ShiftClose, ShiftOpen, Workload
from ..core.protocol.codec import encode
from ..core.protocol.notices import error_message, message_error
from ..core.protocol.server_messages import ServerMessage
from ..core.protocol.session import Session
from ..core.rate_limits import TokenBucket
from ..delivery.connections import Connection
from ..ledger.failures import DATABASE_ERRORS, Phase, report
from ..limits import ConversationLimits

log = structlog.get_logger(__name__)

# Called in a task of its own: a coroutine created earlier would never be awaited if the connection ends first.
# It returns the answer, after the messages that come before it; None if the answer comes with a notice.
Work = Callable[[], Awaitable[ServerMessage | list[ServerMessage] | None]]

# Errors that a correct client never causes, or rarely: too many of them close the connection.
_MISUSE = {ErrorCode.BAD_FIELD, ErrorCode.UNKNOWN_TYPE, ErrorCode.WRONG_CURRENCY, ErrorCode.TOO_MANY_MESSAGES}

# Requests whose task writes to the ledger. Others only read, or leave the write to the engine.
_WRITES = (PinSet, ShiftOpen, ShiftClose)


class Conversation:
    """One connection's messages after `authenticate`.

    `refuse_early` and `handle` are those of `DeviceEndpoint`: the first refuses a message before it is parsed, the
    second acts on a parsed one.
    """

    __slots__ = (
        "_connection",
        "_handle",
        "_limits",
        "_pace",
        "_patience",
        "_queries",
        "_refuse_early",
        "_session",
        "_tasks",
    )

    def __init__(
        self,
        limits: ConversationLimits,
        session: Session,
        connection: Connection,
        refuse_early: Callable[[str], str | None],
        handle: Callable[[Request], Work | None],
        now_s: float,
    ) -> None:
        self._limits = limits
        self._session = session
        self._connection = connection
        self._refuse_early = refuse_early
        self._handle = handle
        self._pace = TokenBucket(limits.messages_per_s, limits.messages_burst, now_s)
        self._patience = TokenBucket(limits.bad_messages_per_s, limits.bad_messages_burst, now_s)
        # Created at first use, because idle connections need neither.
        self._queries: TokenBucket | None = None
        self._tasks: set[asyncio.Task[None]] | None = None

    def receive_or_fail(self, text: str) -> Exception | None:
        """Call `receive`, and return the exception that it raises: for DirectSocket.listen."""
        try:
            self.receive(text)
        except Exception as failure:
            return failure
        return None

    def receive(self, text: str) -> None:
        """Act on one message; its answer or error goes to the connection. Raises ConnectionClosing."""
        limits, now_s = self._limits, time.monotonic()
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
            workload = type(message).workload
            if workload is Workload.QUERY:
                self._queries = self._queries or TokenBucket(limits.queries_per_s, limits.queries_burst, now_s)
                if not self._queries.take(now_s):
                    raise refused(ErrorCode.TOO_MANY_QUERIES, message, retry_after_s=1)
            if workload is not Workload.SUBMIT and len(self._tasks or ()) >= limits.requests_max:
                raise refused(ErrorCode.BUSY, message)
            work = self._handle(message)
            if work is not None:
                if workload is Workload.SUBMIT:
                    raise AssertionError(f"{message.type} has work in a task that nothing bounds")
                self._tasks = set() if self._tasks is None else self._tasks
                task = asyncio.create_task(_answer(work, message, self._connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except MessageError as error:
            self._connection.deliver(encode(error_message(error)))
            if error.code in _MISUSE and not self._patience.take(now_s):
                raise self._session.close(CloseCode.TOO_MANY_MESSAGES, "too many bad messages") from None

    def end(self) -> None:
        """Cancel the requests at work: nobody waits for their answers."""
        for task in self._tasks or ():
            task.cancel()


def refused(
    code: ErrorCode, message: Request, *, field: str | None = None, retry_after_s: int | None = None
) -> MessageError:
    """Return the error that answers `message`, with the code's usual text."""
    return message_error(code, message.message_id, field=field, retry_after_s=retry_after_s)


def _about(message: Request) -> dict[str, str]:
    payment_id = getattr(message, "payment_id", None)
    return {} if payment_id is None else {"payment_id": str(payment_id)}


async def _answer(work: Work, message: Request, connection: Connection) -> None:
    try:
        try:
            answer = await work()
        except MessageError as error:
            answer = error_message(error)
        except DATABASE_ERRORS as error:
            phase = Phase.WRITE if isinstance(message, _WRITES) else Phase.READ
            failure = report(error, phase, during=message.type, **_about(message))
            answer = error_message(refused(failure.answer, message))
        for each in answer if isinstance(answer, list) else [answer]:
            if each is not None:
                connection.deliver(encode(each))
    except Exception:
        log.exception("request_failed", type=message.type, **_about(message))
        connection.close(CloseCode.UNAVAILABLE, "server fault, come back")
