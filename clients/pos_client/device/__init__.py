"""The parts that tills and wallets share: credentials, the connection, and requests that need an answer.

An activation code is exchanged for credentials once (`activation`). Each device keeps them in a private file of its
own (`credentials`, `files`). They hold a key that never crosses the network again: the device proves it with a MAC
over the server's nonce.

A device has one WebSocket (`connection`). Losing it is normal. `disconnects` and `heartbeat` decide whether it is lost,
and whether to reconnect after a random delay (`backoff`) or to stop. At a reconnect the device sends the latest
server time that it has seen. The server replays later results, and `resume` drops duplicates by payment id and version.

`requests` resends each open request after a silence, after a reconnect, and after an error that allows a retry. That
is safe because an id in the request stays the same, so the server recognizes a repeat. `inbox` is the bounded queue of
results that nobody waits for.
"""
