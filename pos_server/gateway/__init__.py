"""The WebSocket side: sockets, sessions and messages of devices. It never writes money: it submits operations.

A connection's way: admission (may it open at all) → upgrade → `hello` → `authenticate` → `ready` and missed results →
conversation, until one side closes it.

    admission.py            bounds on connections, decided before the upgrade
    routes.py               a WebSocket's path to its endpoint
    device.py               the endpoint that both kinds of device share
    terminal.py, wallet.py  the messages of each kind
    conversation.py         limits, errors and slow requests of one connection
    direct_socket.py        the short way between an endpoint and its socket
    websocket_protocol.py   uvicorn's WebSocket protocol with that short way
    frames.py               the frames that nearly all traffic consists of
    pin_hasher.py           Argon2id in a few threads
    catch_up.py, drain.py   results missed between servers; an orderly end
"""
