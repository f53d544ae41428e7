"""A customer's wallet: payment codes, notices of payments, and confirmations with the PIN.

Codes work offline (`codes`): they need only the device's key, a clock, and the last code shown. Each code is valid
once, in its 30-second step, so the wallet moves to the next code at every step and after every use.

A state file (`state`) keeps the data that a restart must not lose: the last code shown, the offset to the server's
clock, and the time to resume notices from. Several processes may share the file.

`client` is the public class. Online it corrects its clock, learns of used codes from notices, and answers confirmation
requests. PINs are sent and forgotten.
"""
