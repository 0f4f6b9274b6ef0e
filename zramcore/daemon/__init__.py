"""The daemon: devices that outlive a command, their policies, NBD and a control API over a unix socket.

`service` is its life; `fleet` the devices with their labels, policies and images; `api` the tree of resources and
`web` what serves it; `client` the other end. docs/daemon.md describes them for users.
"""
