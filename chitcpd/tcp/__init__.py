"""The TCP. Pure: no I/O, no clock, no randomness; time is an argument, outputs are pulled.

Read `api` first: the contract between a TCP and the daemon. Then `connection`, beside RFC 9293 section 3.10.
"""
