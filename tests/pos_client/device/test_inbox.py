import pytest

from pos_client.device.inbox import Inbox
from pos_client.errors import ConnectionStopped


@pytest.mark.asyncio
async def test_items_come_in_order_and_the_end_repeats() -> None:
    inbox: Inbox[int] = Inbox(5)
    end = ConnectionStopped(4100, "no")
    for item in (1, 2, end, end):
        inbox.put(item)
    assert len(inbox) == 2
    assert [await inbox.get(), await inbox.get()] == [1, 2]
    assert len(inbox) == 0
    for _ in range(3):
        with pytest.raises(ConnectionStopped) as stopped:
            await inbox.get()
        assert stopped.value is end


@pytest.mark.asyncio
async def test_a_full_inbox_drops_the_oldest_item() -> None:
    inbox: Inbox[int] = Inbox(3)
    for item in range(5):
        inbox.put(item)
    inbox.put(ConnectionStopped(4100, "no"))
    assert [await inbox.get(), await inbox.get()] == [3, 4]
    with pytest.raises(ConnectionStopped):
        await inbox.get()
