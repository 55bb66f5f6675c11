# Copyright (c) 2026 holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How values are checked: what is refused, what comes out, and what a message shows."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.holdfast.backup.plugins.plugin_utils import _fields as f
from ansible_collections.holdfast.backup.plugins.plugin_utils import _problems
from ansible_collections.holdfast.backup.plugins.plugin_utils._problems import BadInput

HUGE = "a" * 10_000_000
# Every type that YAML, JSON or a template can give, none of which may end in a traceback.
ODD: list[t.Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    " ",
    "\n",
    "a\nb",
    "\0",
    "\ud800",
    "%h",
    "$x",
    "'\"",
    "é😀",
    [],
    {},
    [[]],
    [None],
    {"a": {"b": []}},
    {1: 2},
    {None: None},
    b"bytes",
    ("a",),
    {1, 2},
    object(),
    HUGE,
    int("f" * 6000, 16),
]
CHECKERS: dict[str, f.Checker] = {
    "name": f.name,
    "string": f.string,
    "text": f.text(r"[a-z]+", "a word", "Write a word"),
    "size": f.size("a size", "KMGT"),
    "choice": f.choice("auto", "off"),
    "integer": f.integer(0, 10),
    "boolean": f.boolean,
    "absolute_path": f.absolute_path,
    "plain_path": f.plain_path,
    "line": f.line,
    "listing": f.listing(f.line),
    "seconds": f.seconds(0),
    "address": f.address,
    "proxy": f.proxy,
    "mapping": lambda where, value: f.mapping({"a": f.line}, where, value),
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_no_type_ends_in_a_traceback(checker: str) -> None:
    for value in ODD:
        bad = None
        try:
            CHECKERS[checker]("here", value)
        except BadInput as caught:
            bad = caught
        if bad is not None:
            assert bad.where.startswith("here")
            assert bad.wrong
            assert bad.cure
            assert len(_problems.shorten(bad.value)) <= _problems.SHOWN


class Tagged(str):
    """As Ansible's own strings are: a subclass that must not leak into the model."""


@pytest.mark.parametrize(
    ("checker", "value"),
    [
        (f.name, "web"),
        (f.line, "a line"),
        (f.absolute_path, "/a"),
        (f.plain_path, "/a"),
        (f.address, "vault1"),
        (f.proxy, "http://proxy:3128"),
        (f.choice("a"), "a"),
        (f.text("a", "", ""), "a"),
    ],
)
def test_results_are_plain_text(checker: f.Checker, value: str) -> None:
    assert not isinstance(checker("here", Tagged(value)), Tagged)


@pytest.mark.parametrize("value", ["a", "web1", "web-1-x", "a" * 28])
def test_names(value: str) -> None:
    assert f.name("here", value) == value


@pytest.mark.parametrize(
    "value",
    ["", "A", "1a", "a--b", "-a", "a-", "a_b", "a.b", "a" * 29, "a\n", "ä", "web1 ", "a/b", "..", 1, None, *f.RESERVED],
)
def test_names_refused(value: t.Any) -> None:
    with pytest.raises(BadInput):
        f.name("here", value)


def test_string_bounds() -> None:
    assert f.string("here", "é", 2) == "é"
    with pytest.raises(BadInput, match="3 bytes long"):
        f.string("here", "éa", 2)
    with pytest.raises(BadInput, match="surrogate"):
        f.string("here", "\udcff")
    with pytest.raises(BadInput, match="not text"):
        f.string("here", 5)


@pytest.mark.parametrize(("value", "result"), [("500M", "500M"), ("1", "1"), (1000, "1000"), ("999999T", "999999T")])
def test_sizes(value: t.Any, result: str) -> None:
    assert f.size("a size", "KMGT")("here", value) == result


@pytest.mark.parametrize(
    "value", ["0", "0M", "1k", "1MB", "1.5G", "-1", -1, True, "9999999T", 10**15, "1M\n", "M", "infinity", "5%"]
)
def test_sizes_refused(value: t.Any) -> None:
    with pytest.raises(BadInput, match="not a size"):
        f.size("a size", "KMGT")("here", value)


def test_choice_says_what_yaml_made_of_off() -> None:
    with pytest.raises(BadInput) as caught:
        f.choice("auto", "off")("here", False)
    assert "in quotes" in caught.value.cure
    with pytest.raises(BadInput, match="not one of"):
        f.choice("auto")("here", False)
    assert f.choice("auto", "off")("here", "off") == "off"


@pytest.mark.parametrize(("value", "result"), [(5, 5), ("7", 7), ("0", 0), (10, 10)])
def test_integers(value: t.Any, result: int) -> None:
    assert f.integer(0, 10)("here", value) == result


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (11, "range"),
        ("-1", "range"),
        (True, "whole"),
        (1.0, "whole"),
        ("1e1", "whole"),
        ("٣", "whole"),
        ("1\n", "whole"),
    ],
)
def test_integers_refused(value: t.Any, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        f.integer(0, 10)("here", value)


def test_booleans() -> None:
    assert f.boolean("here", True) is True
    for value in ("yes", 1, None):
        with pytest.raises(BadInput):
            f.boolean("here", value)


@pytest.mark.parametrize(
    ("value", "result"),
    [("/", "/"), ("/a/", "/a"), ("/a b\n%$\"'", "/a b\n%$\"'"), ("//", "/"), ("/a..b", "/a..b"), ("/.../x", "/.../x")],
)
def test_absolute_paths(value: str, result: str) -> None:
    assert f.absolute_path("here", value) == result


@pytest.mark.parametrize("value", ["a", "", "./a", "~/a", "/a/../b", "/..", "/a\0", "/\ud800", "/" + "a" * 4095])
def test_absolute_paths_refused(value: str) -> None:
    with pytest.raises(BadInput):
        f.absolute_path("here", value)


@pytest.mark.parametrize(
    ("value", "result"), [("/srv//a/./b/", "/srv/a/b"), ("//srv", "/srv"), ("/a@b+c-d_e.f", "/a@b+c-d_e.f")]
)
def test_plain_paths(value: str, result: str) -> None:
    assert f.plain_path("here", value) == result


@pytest.mark.parametrize("value", ["/", "//", "/./", "/a b", "/a%h", "/a$b", "/a:b", '/a"', "/é", "/a\n"])
def test_plain_paths_refused(value: str) -> None:
    with pytest.raises(BadInput):
        f.plain_path("here", value)


def test_lists() -> None:
    assert f.listing(f.line)("here", ("a",)) == ["a"]
    with pytest.raises(BadInput, match="empty"):
        f.listing(f.line, empty=False)("here", [])
    with pytest.raises(BadInput) as caught:
        f.listing(f.line)("here", ["a", 5])
    assert caught.value.where == "here[1]"
    with pytest.raises(BadInput, match="not a list"):
        f.listing(f.line)("here", "a")


@pytest.mark.parametrize(
    ("value", "result"), [(0, 0), ("0", 0), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1w", 604800)]
)
def test_spans(value: t.Any, result: int) -> None:
    assert f.seconds(0)("here", value) == result


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("99999w", "range"),
        (10**10, "range"),
        (-1, "range"),
        ("1.5h", "span"),
        ("h", "span"),
        (True, "span"),
        ("5 m", "span"),
        ("5m\n", "span"),
    ],
)
def test_spans_refused(value: t.Any, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        f.seconds(0)("here", value)


def test_a_span_may_have_to_be_positive() -> None:
    with pytest.raises(BadInput, match="range"):
        f.seconds(1)("here", 0)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("vault1", "vault1"),
        ("a.b-c.example", "a.b-c.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("a_b", "a_b"),
    ],
)
def test_addresses(value: str, result: str) -> None:
    assert f.address("here", value) == result


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a b",
        "a:80",
        "[::1]",
        "http://a",
        "a/b",
        "a@b",
        "-a",
        "a.",
        "fe80::1%eth0",
        "fe80::1%%",
        "0.0.0.0",  # noqa: S104 - nothing listens there: it is refused
        "::",
        "224.0.0.1",
        "ff02::1",
    ]
    + ["1.2.3", "1.2.3.4.5", "256.1.1.1", "a\n", "a" * 254, "a%b", "a$b", 3232235777],
)
def test_addresses_refused(value: t.Any) -> None:
    with pytest.raises(BadInput):
        f.address("here", value)


def test_url_host() -> None:
    assert (f.url_host("::1"), f.url_host("a")) == ("[::1]", "a")


@pytest.mark.parametrize("value", ["http://p", "https://p:3128", "socks5://[2001:db8::1]:1080", "http://192.0.2.1:1/"])
def test_proxies(value: str) -> None:
    assert f.proxy("here", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "p:3128",
        "http://",
        "http://[::1",
        "http://[zz]:1",
        "http://p:70000",
        "http://p:x",
        "http://p/path",
        "http://p?q",
        "ftp://p",
    ]
    + ["http://p\n", "http://p%h", "http://p$x", 'http://p"', "http://p q", None],
)
def test_proxies_refused(value: t.Any) -> None:
    with pytest.raises(BadInput):
        f.proxy("here", value)


@pytest.mark.parametrize("value", ["http://user:geheim@p:1", "http://geheim@p", "geheim@p", "http://geheim@[::1"])
def test_a_proxys_credentials_are_not_shown(value: str) -> None:
    with pytest.raises(BadInput) as caught:
        f.proxy("here", value)
    assert "geheim" not in _problems.shorten(caught.value.value)


def test_mappings() -> None:
    fields: dict[str, f.Checker] = {"a": f.line, "b": f.line}
    assert f.mapping(fields, "here", {"a": "x", "b": None}) == {"a": "x"}
    with pytest.raises(BadInput) as caught:
        f.mapping(fields, "here", {"c": 1})
    assert (caught.value.where, caught.value.cure) == ("here.c", "Known keys: a, b")
    with pytest.raises(BadInput) as caught:
        f.mapping(fields, "here", {"a": None}, required=("a",))
    assert (caught.value.where, caught.value.wrong) == ("here.a", "is missing")


# --- what a message shows


def test_a_problem_is_one_line_that_moves_no_cursor() -> None:
    problem = _problems.Problem(("web1\x1b[2J",), "a\nb", "'x'", "is wrong\r", "Cure\u202e it")
    assert str(problem) == "web1\\x1b[2J: a\\nb = 'x': is wrong\\r. Cure\\u202e it"
    assert str(_problems.Problem(("a", "b"), "v", "", "is wrong", "Cure it")) == "a, b: v: is wrong. Cure it"


@pytest.mark.parametrize(
    "value",
    [
        "AGE-SECRET-KEY-1QQQ",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "rest:https://u:geheim@host/",
        {"password": "geheim"},
        ["--password=geheim"],
        "API_TOKEN: geheim",
    ],
)
def test_what_looks_like_a_secret_is_hidden(value: t.Any) -> None:
    shown = _problems.shorten(value)
    assert shown == "<hidden>" or ("geheim" not in shown and "SECRET" not in shown and "PRIVATE" not in shown)


def test_values_are_shown_short_and_quoted() -> None:
    assert _problems.shorten("a\n") == "'a\\n'"
    assert _problems.shorten(Tagged("a")) == "'a'"
    assert _problems.shorten(5) == "5"
    assert len(_problems.shorten(HUGE)) == _problems.SHOWN
    assert _problems.shorten(int("f" * 6000, 16)) == "<int>"


def test_paths_of_keys() -> None:
    assert _problems.below("a", "b_c.d-e") == "a.b_c.d-e"
    assert _problems.below("a", "x\n") == "a.'x\\n'"
    assert _problems.below("a", 5) == "a.5"
    assert len(_problems.below("a", HUGE)) < 100


def test_what_an_exception_says() -> None:
    assert _problems.said(ValueError("a\n  b")) == "a b"
    assert _problems.said(ValueError()) == "ValueError"
    assert len(_problems.said(ValueError(HUGE))) == _problems.SAID
