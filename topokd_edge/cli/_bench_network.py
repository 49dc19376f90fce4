"""Where a bench listens for a phone: the address, the port, and what is wrong with either."""

from __future__ import annotations

import errno
import ipaddress
import socket

from topokd_edge.errors import DeviceError, MissingError, TopokdError, UsageError


def check_address(address: str) -> None:
    """Refuse what is not the IP address of one network interface.

    Raises
    ------
    UsageError
        With an example.
    """
    hint = "give the one address that the phone reaches, such as --address 192.168.1.20"
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"--address {address}: expected an IP address", hint=hint) from None
    if known.is_unspecified or known.is_multicast or "%" in address:
        raise UsageError(f"--address {address}: expected the address of one network interface", hint=hint)


def own_address() -> str:
    """Return this machine's address on the network that it reaches others by; nothing is sent.

    Raises
    ------
    MissingError
        When it is in no network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): a route is looked up, no packet leaves
            return str(probe.getsockname()[0])
        except OSError:
            raise MissingError(
                "this machine is in no network that a phone could reach it by",
                hint="join one, or give --address 127.0.0.1 for a browser on this machine or adb reverse",
            ) from None


def cannot_listen(error: OSError, address: str, port: int) -> TopokdError:
    """Return the error a user meets when a server could not be started."""
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"--port {port}: something else listens there already", hint="give another, or 0 for any free one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"--address {address}: no address of this machine", hint="`ip address` lists those it has"
        )
    if error.errno == errno.EACCES:
        return UsageError(f"--port {port}: not allowed for this user", hint="give one from 1024 up")
    return DeviceError(f"cannot listen on {address}, port {port}: {error.strerror or error}")
