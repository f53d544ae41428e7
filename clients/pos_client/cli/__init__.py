"""The commands `pos-terminal` and `pos-wallet`."""
