"""The WebSocket protocol: messages, the states of a connection, and notices.

- `client_messages`, `server_messages`, `fields`: the messages, each described once, where it is defined. A request
  names its `replies`.
- `codec`: text frames to messages and back.
- `session`: the messages that a device may send, by the state of its connection.
- `notices`: the messages that an outcome causes, and their recipients.
- `asyncapi`: the AsyncAPI document, derived from the messages. `make generate` writes the tables of docs/protocol.md
  from them, too.

To add a message, define its class, add it to the unions and to the `replies` of its request, and give it a section with
a marker in docs/protocol.md. A request is handled in gateway/terminal.py or gateway/wallet.py, and sent by pos_client's
terminal/client.py or wallet/client.py, whose `_Message` and `_on_message` name the messages that it receives.
"""
