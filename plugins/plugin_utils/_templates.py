# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates of units, compiled once for all hosts where that is done before Ansible forks."""

from __future__ import annotations

import functools

import jinja2
from ansible.plugins.filter.core import FilterModule as CoreFilters
from ansible_collections.holdfast.backup.plugins.filter.units import FilterModule as UnitFilters


@functools.cache
def environment(directory: str) -> jinja2.Environment:
    """How Ansible reads templates of this directory; kept, since compiling one costs more than rendering it."""
    found = jinja2.Environment(  # noqa: S701 - unit files and configuration, no HTML
        loader=jinja2.FileSystemLoader(directory),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        auto_reload=False,
    )
    # Ansible's own `default` knows Ansible's own kind of undefined values only.
    own = {name: found.filters[name] for name in ("default", "d")}
    found.filters.update(CoreFilters().filters() | own)
    found.filters.update({f"holdfast.backup.{name}": each for name, each in UnitFilters().filters().items()})
    return found


def compile_all(directory: str) -> None:
    """Compile every template of a directory, for who asks ``environment`` for it later."""
    found = environment(directory)
    for name in found.list_templates(extensions=["j2"]):
        found.get_template(name)
