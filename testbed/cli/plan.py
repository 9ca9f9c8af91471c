"""testbed plan."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import asdict
from typing import Any

import click

from testbed import backends, daemon
from testbed.cli.options import Wanted, lab_options
from testbed.cli.output import format_option, print_json, say, verbose_option
from testbed.events import timeline
from testbed.graph import said
from testbed.plan import AppPlan, HostPlan, Plan
from testbed.plan import plan as make


@click.command()
@lab_options
@format_option
@verbose_option
def plan(wanted: Wanted, output_format: str) -> int:
    """Show what a run would make of a topology: every address, every seed, every command.

    \b
    Examples:
      testbed plan topologies/satellite.yaml
      testbed plan topologies/lossy.yaml --seed 7 --format json

    Nothing is started. Subnets that are in use at this moment are passed over, as a run would; and what the backend
    would refuse of a run is refused.
    """
    choice = backends.choose(wanted.backend)
    made = make(
        wanted.topology,
        run_id="plan",
        lab=wanted.lab,
        pool=choice.backend.pool,
        in_use=choice.backend.subnets_in_use(),
    )
    choice.backend.check_plan(made)
    if output_format == "json":
        events = [{"at": step.at, "event": step.title} for step in timeline(wanted.topology, made)]
        print_json({"backend": choice.backend.name, **_for_programs(asdict(made)), "events": events})
        return 0
    say(f"lab {made.lab}, seed {made.seed}, backend {choice.backend.name}: {choice.why}")
    for link in made.links:
        say(f"link {link.name}: {link.subnet}")
    for host in made.nodes:
        _show_host(made, host)
    for app in made.apps:
        _show_app(app)
    for step in timeline(wanted.topology, made):
        say(f"at {step.at:g} s: {step.title}")
    return 0


def _show_host(made: Plan, host: HostPlan) -> None:
    options = daemon.options(made, host, trace="trace.jsonl", segments="segments.pcap", implementation="tcp.py")
    command = ["chitcpd", *options] if host.image is None else [host.image, *host.command]
    say(f"{'router' if host.forwards else 'host'} {host.name}: {shlex.join(command)}")
    for end in host.interfaces:
        shape = ", ".join(said(end.shape, end.underlay)) or "as it is"
        others = ", ".join(f"{name} {address}" for name, address in end.peers.items())
        say(f"  {end.address} to {others}: {shape}; MTU {end.mtu}, seed {end.seed}")
    for way in host.ways:
        say(f"  by {way.gateway} to {', '.join(way.subnets)}: MTU {way.mtu}")


def _show_app(app: AppPlan) -> None:
    ready = f", ready when it listens on port {app.listening}" if app.listening else ""
    ready = f", ready when it writes {app.says}" if app.says else ready
    needs = f", after {' and '.join(app.needs)}" if app.needs else ""
    end = f"must end with {app.expect_exit} within {app.timeout:g} s" if app.expect_exit is not None else "serves"
    say(f"app {app.name} on {app.host}: {shlex.join(app.run)}")
    say(f"  {end}{ready}{needs}")
    for name, content in app.files.items():
        say(f"  has {name}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


def _for_programs(value: Any) -> Any:
    """Contents of files by their digest; sets as lists."""
    if isinstance(value, dict):
        return {key: _for_programs(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_for_programs(inner) for inner in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    return value
