"""The commands `pos-terminal` and `pos-wallet`.

Every command prints its outcome on the standard output, as text or, with `--json`, as one JSON object per line. Advice
and errors are single lines on the standard error. The exit code distinguishes approved, declined, unknown and not done
(`console.ExitCode`).

`main` parses the command lines. `till_commands` and `shift_commands` hold the one-shot commands of a till,
`till_screen` the interactive one. All of them use a TerminalClient in a thread of its own (`till_session`).
`wallet_commands`, `wallet_requests` and `wallet_screen` hold the commands of a wallet, with `pin_dialog` and `keyboard`
for PINs.
"""
