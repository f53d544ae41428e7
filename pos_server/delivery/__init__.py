"""Delivers notices to connected devices, at this server and at others. Money never depends on it: rows decide.

**Here.** `Connections` holds at most one connection per device, each with a bounded outbox. `deliver` never waits: a
peer that does not read is disconnected.

**At other servers.** Servers on one database are peers. Each knows which devices the others hold, and sends them the
notices for these over LISTEN/NOTIFY, in transactions of its own. A notice may be lost: a server that lost touch reads
the rows for its devices (`catch_up`).

**Races, and what settles them.**

- A device connects twice to one server: the connection that arrived later stays, even if it authenticated first.
- A device connects to two servers: the order of the channel is the same for all, and the later `opened` wins. A ghost,
  a connection that its device has given up, is recognized by its earlier arrival.
- A device moves while a notice is on its way to its old server: `opened` makes every peer repeat its recent notices.
- A notice is committed between the rows that `ready` read and the registration of the connection: impossible, because
  the connection is registered first. The device may receive it twice, and orders the two by `version`.
- A key is revoked while its device is connected: the server that made the change closes the connection and notifies
  its peers; a periodic check catches what they missed.

    connections.py     connected devices and their outboxes
    peers.py           the other servers
    peer_messages.py   messages between servers
    recent_notices.py  notices of the last seconds, for devices that move
    publisher.py       from a committed outcome to notices, here and there
    revocation.py      closes connections whose key is no longer valid
"""
