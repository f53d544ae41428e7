"""Credentials: device keys, payment codes, activation codes, API keys and PINs.

The server stores no device secret. Every device key is derived from a master key and the device's identity, so a
stolen database contains no key, and a new `generation` revokes a device. API keys and activation codes are random and
stored as SHA-256 hashes. A PIN has too little entropy for that: it is combined with a pepper from the master key
before it is hashed with Argon2id. A payment code is a MAC over the wallet, the device slot and a 30-second step; a
wallet makes it offline, and the server accepts it once.
"""
