"""Where on the local network this computer is."""

import socket

LOOPBACK = "127.0.0.1"
_ELSEWHERE = ("192.0.2.1", 9)
"""An address of documentation (RFC 5737): a UDP socket that is connected sends nothing, but knows its own."""


def lan_address() -> str | None:
    """Return this computer's address in the network that its default route leads to; None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") or address == "0.0.0.0" else address
