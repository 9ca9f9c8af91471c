"""chitcpd: a daemon that holds a TCP, between chisocket applications and the daemons of other hosts."""

__version__ = "0.1.0"
