# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup `unit_template`: a template of a role, rendered with the values that it is given and no others."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unit_template
short_description: A template of a role, rendered with given values only
version_added: '0.1.0'
author: holdfast contributors (@holdfast-backup)
description:
  - Renders a template as P(ansible.builtin.template#lookup) does, with nothing but the values that it is given.
  - That lookup copies every variable of the host for each template, the model of the whole fleet among them, and compiles
    each template anew. This one is for a host that has many units.
options:
  _terms:
    description: Names of templates, looked for as P(ansible.builtin.template#lookup) does.
    required: true
  values:
    description: What the template knows. Nothing in it is a template again.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show a unit
  ansible.builtin.debug:
    msg: "{{ lookup('holdfast.backup.unit_template', 'record.service.j2', values={'jobs_program': '/usr/local/bin/holdfast'}) }}"
"""

RETURN = r"""
_raw:
  description: The texts.
  type: list
  elements: str
"""

import posixpath
import typing as t

import jinja2
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.holdfast.backup.plugins.plugin_utils._templates import environment


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        """The texts. Raises AnsibleError for a template that is not there, or that the values do not fit."""
        self.set_options(var_options=variables, direct=kwargs)
        values = self.get_option("values")
        texts = []
        for term in terms:
            path = self.find_file_in_search_path(variables, "templates", term)
            if path is None:
                raise AnsibleError(f"the template {term} could not be found")
            directory, name = posixpath.split(path)
            try:
                texts.append(f"{environment(directory).get_template(name).render(values).rstrip()}\n")
            except jinja2.TemplateError as error:
                raise AnsibleError(f"the template {term} cannot be rendered: {error}") from error
        return texts
