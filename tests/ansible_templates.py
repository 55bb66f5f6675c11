"""Templates that Ansible compiles again and again, compiled once: part of tests/ansible_server.py.

Ansible compiles the templates of a task in the process that it forks for each host, and forgets them with it: a third of what a
run costs the controller. Here the next process finds the code in a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
from pathlib import Path
from types import CodeType
from typing import Any

from ansible._internal._templating import _jinja_bits
from jinja2.environment import TemplateExpression


def keep(folder: Path) -> None:
    """Keep what is compiled from now on, in this process and in all that it forks."""
    kind: Any = _jinja_bits.AnsibleEnvironment
    own_compile, own_expression = kind.compile, kind.compile_expression
    expressions: list[Path] = []

    def compile_(self: Any, source: Any, *arguments: Any, **options: Any) -> Any:
        # A file has a name, and is loaded once. What is not text is the tree of an expression.
        if arguments or options or self.overlayed or not (isinstance(source, str) or expressions):
            return own_compile(self, source, *arguments, **options)
        path = _path(folder, "template", source) if isinstance(source, str) else expressions.pop()
        code = _read(path)
        if code is None:
            code = own_compile(self, source)
            _write(path, code)
        return code

    def compile_expression(self: Any, source: str, undefined_to_none: bool = True) -> Any:
        path = _path(folder, "expression", source)
        code = None if self.overlayed else _read(path)
        if code is not None:
            template = self.template_class.from_code(self, code, self.make_globals(None), None)
            return TemplateExpression(template, undefined_to_none)
        expressions.append(path)
        try:
            return own_expression(self, source, undefined_to_none)
        finally:
            expressions.clear()

    kind.compile, kind.compile_expression = compile_, compile_expression


def _path(folder: Path, what: str, source: str) -> Path:
    context: Any = _jinja_bits._TemplateCompileContext.current(optional=True)
    escapes = bool(context and context.escape_backslashes)
    return folder / hashlib.sha256(f"{what} {escapes} {source}".encode(errors="surrogatepass")).hexdigest()


def _read(path: Path) -> CodeType | None:
    try:
        code: CodeType = marshal.loads(path.read_bytes())  # noqa: S302 - what this very program wrote
    except FileNotFoundError:
        return None
    return code


def _write(path: Path, code: CodeType) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.write_bytes(marshal.dumps(code))
        temporary.rename(path)
