# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup unit_template gives what Ansible's own gives, of the values alone."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.holdfast.backup.plugins.lookup.unit_template import LookupModule


class Lookup(LookupModule):
    """The plugin without Ansible's configuration, which knows options of loaded collections only."""

    def set_options(self, task_keys: t.Any = None, var_options: t.Any = None, direct: t.Any = None) -> None:
        self._direct = direct

    def get_option(self, option: str, hostvars: t.Any = None) -> t.Any:
        return self._direct[option]


def look(folder: Path, term: str, own: bool = True, **options: t.Any) -> t.Any:
    """What the plugin gives, or Ansible's."""
    loader = DataLoader()
    variables = {"ansible_search_path": [str(folder)], "secret": "must stay out"}
    templar = Templar(loader=loader, variables=variables)
    plugin = Lookup(loader, templar) if own else lookup_loader.get("template", loader=loader, templar=templar)
    return plugin.run([term], variables=variables, **options)


UNIT = """\
# {{ unit.name }}
{% include 'part.j2' %}

{% if unit.words %}
Words={{ unit.words | join(' ') }} {{ {'a': 1} | combine({'b': 2}) | to_json }}
{% endif %}
"""
VALUES = {"unit": {"name": "web", "words": ["/bin/true", "a b", "{{ 1 + 1 }}"]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/unit.j2").write_text(UNIT)
    (tmp_path / "templates/part.j2").write_text("User=root\n")
    (tmp_path / "templates/words.j2").write_text("{{ unit.words | map('holdfast.backup.unit_word') | join(' ') }}")
    (tmp_path / "templates/bad.j2").write_text("{{ secret }}\n")
    return tmp_path


def test_it_is_what_ansibles_own_lookup_gives(folder: Path) -> None:
    found = look(folder, "unit.j2", values=VALUES)
    assert found == look(folder, "unit.j2", own=False, template_vars=VALUES)
    assert found == ['# web\nUser=root\nWords=/bin/true a b {{ 1 + 1 }} {"a": 1, "b": 2}\n']


def test_the_filters_of_units_are_known(folder: Path) -> None:
    assert look(folder, "words.j2", values=VALUES) == ['/bin/true "a b" "{{ 1 + 1 }}"\n']


def test_it_knows_nothing_but_the_values(folder: Path) -> None:
    with pytest.raises(AnsibleError, match=r"bad\.j2 cannot be rendered: 'secret' is undefined"):
        look(folder, "bad.j2", values=VALUES)


def test_a_template_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(AnsibleError, match=r"nowhere\.j2 could not be found"):
        look(folder, "nowhere.j2", values={})


def test_a_missing_key_has_its_default(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/x.j2").write_text("{{ of['a'] | default('none') }} {{ of.b | d('none') }}\n")
    assert look(tmp_path, "x.j2", values={"of": {}}) == ["none none\n"]
