"""What tills and wallets share: credentials, the connection, and requests that are sent until they are answered."""
