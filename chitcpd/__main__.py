"""`python -m chitcpd` is `chitcpd`."""

from chitcpd.cli import main

main()
