import asyncio

import pytest

from pos_client.device.inbox import Inbox
from pos_client.errors import ConnectionStopped


@pytest.mark.asyncio
async def test_items_come_in_order_and_the_end_repeats() -> None:
    inbox: Inbox[int] = Inbox(5)
    end = ConnectionStopped(4100, "no")
    inbox.put(1)
    inbox.put(2)
    inbox.close(end)
    inbox.close(ConnectionStopped(4101, "later"))
    assert len(inbox) == 2
    assert [await inbox.get(), await inbox.get()] == [1, 2]
    assert len(inbox) == 0
    for _ in range(3):
        with pytest.raises(ConnectionStopped) as stopped:
            await inbox.get()
        assert stopped.value is end


@pytest.mark.asyncio
async def test_a_full_inbox_takes_no_further_item() -> None:
    inbox: Inbox[int] = Inbox(3)
    for item in range(5):
        assert inbox.is_full is (item >= 3)
        inbox.put(item)
    assert [await inbox.get(), await inbox.get(), await inbox.get()] == [0, 1, 2]


@pytest.mark.asyncio
async def test_a_waiting_reader_gets_the_next_item_and_the_end() -> None:
    inbox: Inbox[int] = Inbox(3)
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put(7)
    assert await reader == 7
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.close(ConnectionStopped(4100, "no"))
    with pytest.raises(ConnectionStopped):
        await reader


@pytest.mark.asyncio
async def test_an_item_is_done_when_its_reader_asks_for_the_next_one() -> None:
    inbox: Inbox[int] = Inbox(3)
    assert inbox.is_done
    inbox.put(1)
    assert not inbox.is_done
    await inbox.get()
    assert not inbox.is_done
    reader = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    assert inbox.is_done
    inbox.put(2)
    await reader
    assert not inbox.is_done
    inbox.acknowledge()
    assert inbox.is_done


@pytest.mark.asyncio
async def test_room_comes_when_items_are_read() -> None:
    inbox: Inbox[int] = Inbox(3)
    for item in range(3):
        inbox.put(item)
    waiting = asyncio.create_task(inbox.room(2))
    await inbox.get()
    await asyncio.sleep(0)
    assert not waiting.done()
    await inbox.get()
    await waiting
