"""Requests that are sent until they are answered: after a silence, after every reconnect, after errors that say so.

Every request of the protocol may be sent again: it names what it is about by an id that does not change. Each send has
a message id of its own, by which its answer is told.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from pos_server.core.errors import ErrorCode
from pos_server.core.protocol.client_messages import Request
from pos_server.core.protocol.server_messages import Error

from ..errors import ConnectionStopped, RequestNotDone, RequestRefused, RequestUnanswered
from .backoff import Backoff

REQUEST_TIMEOUT_S = 15.0
"""How long a request waits for its answer, unless told otherwise."""
REQUESTS_IN_FLIGHT_MAX = 16
RESEND_AFTER_S = 5.0
"""Without an answer on a live connection, the server is asked again after this long."""
RESENDS_MAX = 12
"""How often so on one connection: a server in trouble is not asked for ever."""

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT", bound=BaseModel)
log = logging.getLogger("pos_client")


class _Link(Protocol):
    async def send(self, message: BaseModel, /) -> bool: ...


def checked(kind: type[RequestT], **fields: object) -> RequestT:
    """A request with these fields. Raises ValueError for input that no server would take, without repeating it."""
    try:
        return kind.model_validate({"message_id": "1", **fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    raise ValueError(": ".join([*map(str, first["loc"][:1]), first["msg"]]))


@dataclass(eq=False)
class OpenRequest(Generic[AnswerT]):
    """A request without an answer yet.

    `sent` holds the ids of its messages, `in_doubt` of those that the server may have acted on. It is sent again when
    `again` is set, after `retry_in_s`; `held` says not on this connection. `keep` is called before it is first sent.
    """

    body: Request = field(repr=False)
    keep: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    answer: asyncio.Future[AnswerT] = field(default_factory=lambda: asyncio.Future(), repr=False)
    sent: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)
    again: asyncio.Event = field(default_factory=asyncio.Event)
    timeout: asyncio.Timeout | None = None
    slot: asyncio.Semaphore | None = None
    resends: int = 0
    retries: int = 0
    retry_in_s: float = 0.0
    held: bool = False
    trouble: str | None = None

    def message(self, message_id: str) -> BaseModel:
        """What to send now, under this id."""
        self.sent.add(message_id)
        self.in_doubt.add(message_id)
        return self.body.model_copy(update={"message_id": message_id})

    def on_new_link(self) -> None:
        """It is about to be sent on another connection than before."""
        self.resends = 0
        self.held = False

    def on_silence(self) -> None:
        """Nothing was heard for RESEND_AFTER_S: the server is about to be asked again."""
        self.resends += 1

    def on_answer(self, message: AnswerT) -> None:
        """It is answered."""
        if not self.answer.done():
            self.answer.set_result(message)

    def on_refused(self, error: Error) -> None:
        """It is answered with an error that sending again cannot mend."""
        self.give_up(RequestRefused(error.code, error.message, error.field, error.retry_after_s))

    def give_up(self, error: Exception) -> None:
        """End it without an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def unanswered(self, reason: str) -> RequestUnanswered | RequestNotDone:
        """The error for an end without an answer."""
        return RequestUnanswered(reason)

    def free_slot(self) -> None:
        """Make room for another request."""
        if self.slot is not None:
            self.slot.release()
            self.slot = None


class Requests:
    """The open requests of one device. `online` waits for a link, `problem` says why there is none."""

    def __init__(
        self, online: Callable[[], Awaitable[_Link]], backoff: Backoff, problem: Callable[[], str | None]
    ) -> None:
        self._online = online
        self._backoff = backoff
        self._problem = problem
        self._open: set[OpenRequest[Any]] = set()
        self._slots = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)
        # The connection's own part keeps late answers to an earlier process from being taken for ours.
        self._message_ids = map("{}.{}".format, itertools.repeat(secrets.token_hex(8)), itertools.count(1))

    async def ask(self, request: OpenRequest[AnswerT], timeout_s: float) -> AnswerT:
        """Send a request until it is answered, for `timeout_s` (`request.timeout` can be moved); returns the answer.

        At most REQUESTS_IN_FLIGHT_MAX are sent and unanswered at once; more wait. Raises what the request makes of a
        refusal, of a silence and of a stop.
        """
        self._open.add(request)
        sender = asyncio.create_task(self._send_until_answered(request))
        try:
            async with asyncio.timeout(timeout_s) as request.timeout:
                return await request.answer
        except TimeoutError:
            reason = request.trouble or self._problem() or f"no answer within {timeout_s:g} s"
            raise request.unanswered(reason) from None
        finally:
            self._open.discard(request)
            sender.cancel()

    def find(self, reply_to: str | None) -> OpenRequest[Any] | None:
        """The open request that sent this message."""
        return next((request for request in self._open if reply_to in request.sent), None)

    def on_error(self, error: Error) -> None:
        """The server answered with an error."""
        request = self.find(error.reply_to)
        if request is None or error.reply_to is None:
            log.warning("the server reported an error that answers no open request: %s", error.code)
            return
        request.resends = 0
        if error.code != ErrorCode.UNKNOWN_OUTCOME:
            request.in_doubt.discard(error.reply_to)
        # A PIN is locked for a day: nobody waits for that.
        if not error.retryable or error.code == ErrorCode.PIN_LOCKED:
            request.on_refused(error)
            return
        request.trouble = error.message
        if error.code == ErrorCode.DRAINING:
            request.held = True
            return
        request.retry_in_s = error.retry_after_s or self._backoff.delay_s(request.retries)
        request.retries += 1
        deadline_s = request.timeout.when() if request.timeout else None
        if deadline_s is not None and asyncio.get_running_loop().time() + request.retry_in_s >= deadline_s:
            request.give_up(request.unanswered(f"{error.message}; try again in {request.retry_in_s:.0f} s"))
        request.again.set()

    def on_offline(self, stopped: ConnectionStopped | None) -> None:
        """The link was lost, for good if `stopped`."""
        for request in self._open:
            request.again.set()
            if stopped is not None:
                request.give_up(request.unanswered(str(stopped)) if request.in_doubt else stopped)

    async def _send_until_answered(self, request: OpenRequest[AnswerT]) -> None:
        last: _Link | None = None
        try:
            await self._slots.acquire()
            request.slot = self._slots
            link = await self._online()
            if request.keep is not None:
                await request.keep()
            while True:
                if link is not last:
                    request.on_new_link()
                    last = link
                await self._send_on(link, request)
                await self._backoff.sleep(request.retry_in_s)
                link = await self._online()
        except Exception as error:  # ConnectionStopped, or a fault of ours: either way nobody must wait for it
            request.give_up(request.unanswered(str(error)) if request.in_doubt else error)
        finally:
            request.free_slot()

    async def _send_on(self, link: _Link, request: OpenRequest[AnswerT]) -> None:
        """Send it, and again when nothing is heard, until it is to be tried anew or the link is lost."""
        request.again.clear()
        request.retry_in_s = 0.0
        while True:
            if not await link.send(request.message(next(self._message_ids))):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(RESEND_AFTER_S if request.resends < RESENDS_MAX else None):
                    await request.again.wait()
            if request.held:
                await request.again.wait()
            if request.again.is_set():
                return
            request.on_silence()
