"""What an application and its chitcpd say to each other over the UNIX socket.

`chitcpd.proto` has the messages, `framing` the length before each, `addresses` the bytes of a socket address,
`location` the path where the two meet. The contract lives with the client: chitcpd imports it from here.
"""
