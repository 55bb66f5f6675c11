"""Subnets, bridges and the way out."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .shell import LabError, run

IPV4 = ipaddress.IPv4Network(os.environ.get("HOLDFAST_LAB_IPV4", "10.83.0.0/16"))
IPV6 = ipaddress.IPv6Network(os.environ.get("HOLDFAST_LAB_IPV6", "fd68:6f6c:6466::/48"))
FIRST_HOST, LAST_HOST = 10, 250
TABLE = "holdfast_lab"


@dataclass(frozen=True)
class Subnet:
    """The addresses of one lab; number 0 is the lab's own services."""

    index: int

    @property
    def bridge(self) -> str:
        """Name of the bridge."""
        return f"hflab{self.index}"

    @property
    def ipv4(self) -> ipaddress.IPv4Network:
        """The /24."""
        return ipaddress.IPv4Network((int(IPV4.network_address) + (self.index << 8), 24))

    @property
    def ipv6(self) -> ipaddress.IPv6Network:
        """The /64."""
        return ipaddress.IPv6Network((int(IPV6.network_address) + (self.index << 64), 64))

    def address4(self, number: int) -> str:
        """IPv4 address of a host."""
        return str(self.ipv4[number])

    def address6(self, number: int) -> str:
        """IPv6 address of a host; its digits read like those of the IPv4 address."""
        return str(self.ipv6[int(str(number), 16)])


SERVICES = Subnet(0)


def free_index(used: Iterable[int], occupied: Iterable[str]) -> int:
    """The first subnet that no lab has and no route of the machine overlaps."""
    taken = set(used)
    networks = [ipaddress.ip_network(text, strict=False) for text in occupied]
    for index in range(1, 255):
        subnet = Subnet(index)
        if index not in taken and not any(
            subnet.ipv4.overlaps(network)
            if isinstance(network, ipaddress.IPv4Network)
            else subnet.ipv6.overlaps(network)
            for network in networks
        ):
            return index
    raise LabError("No subnet is free; end a lab with `lab down`.")


def free_number(used: Iterable[int]) -> int:
    """The first host number of a lab that is free."""
    taken = set(used)
    for number in range(FIRST_HOST, LAST_HOST + 1):
        if number not in taken:
            return number
    raise LabError(f"A lab holds at most {LAST_HOST - FIRST_HOST + 1} hosts; make a second lab.")


def routed_networks() -> list[str]:
    """What the machine routes already, the default route and the lab's bridges aside."""
    found = []
    for family in ("-4", "-6"):
        for route in json.loads(run(["ip", "-j", family, "route", "show"]).stdout or "[]"):
            destination, device = str(route.get("dst", "default")), str(route.get("dev", ""))
            if destination != "default" and not device.startswith("hflab"):
                found.append(destination)
    return found


def make_bridge(subnet: Subnet) -> None:
    """Create the bridge with the gateway addresses; nothing to do when it is there."""
    if Path(f"/sys/class/net/{subnet.bridge}").exists():
        return
    run(["ip", "link", "add", subnet.bridge, "type", "bridge", "forward_delay", "0"])
    Path(f"/proc/sys/net/ipv6/conf/{subnet.bridge}/disable_ipv6").write_text("0")
    run(["ip", "address", "add", f"{subnet.address4(1)}/24", "dev", subnet.bridge])
    run(["ip", "address", "add", f"{subnet.address6(1)}/64", "dev", subnet.bridge, "nodad"])
    run(["ip", "link", "set", subnet.bridge, "up"])


def remove_bridge(subnet: Subnet) -> None:
    """Remove a bridge if it is there."""
    remove_interface(subnet.bridge)


def remove_interface(name: str) -> None:
    """Remove an interface if it is there."""
    if Path(f"/sys/class/net/{name}").exists():
        run(["ip", "link", "delete", name], check=False)


def make_way_out() -> None:
    """Masquerade what the hosts send to elsewhere over IPv4.

    IPv6 is not forwarded: on many machines that would cost them their router advertisements.
    """
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    rules = f"""
table ip {TABLE} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {IPV4} ip daddr != {IPV4} masquerade
  }}
}}
"""
    if shutil.which("nft"):
        if run(["nft", "list", "table", "ip", TABLE], check=False).returncode == 0:
            return
        if run(["nft", "-f", "-"], input=rules, check=False).returncode == 0:
            return
    if run(["iptables", "-t", "nat", "-C", *_masquerade()], check=False).returncode != 0:
        run(["iptables", "-t", "nat", "-A", *_masquerade()])


def remove_way_out(ip_forward: str) -> None:
    """Take back what make_way_out did."""
    if shutil.which("nft"):
        run(["nft", "delete", "table", "ip", TABLE], check=False)
    if shutil.which("iptables"):
        run(["iptables", "-t", "nat", "-D", *_masquerade()], check=False)
    Path("/proc/sys/net/ipv4/ip_forward").write_text(ip_forward)


def _masquerade() -> list[str]:
    return ["POSTROUTING", "-s", str(IPV4), "!", "-d", str(IPV4), "-j", "MASQUERADE"]
