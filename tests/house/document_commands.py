"""The commands in our documents: README.md, CONTRIBUTING.md, docs/, experiments/; the comments and help in conf/."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^( *)```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
STARTS = re.compile(r"(?:[A-Z_]\w*=\S+ )*(?:make |torchrun .*-m |(?:\.venv/bin/)?python -m )")
IN_CONF = re.compile(r"(?:# )?((?:[A-Z_0-9]+=\S+ )*(?:python -m geoclip\.|torchrun |make )\S.*?)(?:  |, |; |$)")
OPERATORS = set(";&|()")
SHELL = {"cat", "head", "do", "done", "exit", "fi", "for", "if", "rm", "test", "then", "trap", "wait", "["}
OTHERS = {"scontrol", "scancel", "pip", "hf", "ray", "pre-commit"}  # other people's programs


@dataclass(kw_only=True, slots=True, frozen=True)
class Command:
    """`make` or a Python module, each with its arguments; or an `export`, which has variables only."""

    where: str  # the document
    text: str
    module: str = ""  # geoclip.train; empty: make
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    ranks: int = 1

    @property
    def is_export(self) -> bool:
        """Whether it sets variables for the commands after it."""
        return not (self.module or self.arguments)


def document_commands(path: Path, where: str) -> list[Command]:
    """Every command of a Markdown file, in order: of its bash blocks, then of its code spans."""
    text = path.read_text(encoding="utf-8")
    found = [command for _, block in FENCE.findall(text) for command in block_commands(block, where)]
    prose = FENCE.sub("", text)
    spans = [span for span in SPAN.findall(prose) if STARTS.match(span) and "…" not in span]
    return [*found, *(command for span in spans for command in block_commands(span, where))]


def conf_commands(path: Path, where: str) -> list[Command]:
    """Every command of a YAML file of conf/: of its comments above the first key, and of its help."""
    text = path.read_text(encoding="utf-8")
    head = [line for line in text.splitlines()[:3] if line.startswith("# ")]
    help_text = text.partition("template: |")[2].partition("== Groups")[0]
    found: list[Command] = []
    for line in [*head, *(line.strip() for line in help_text.splitlines() if "python" in line)]:
        parts = re.split(r"(?<=\S), or .*?(?=python )", line)
        for part in parts:
            command = IN_CONF.match(part)
            if command and "…" not in command.group(1):
                found += block_commands(command.group(1), where)
    return found


def block_commands(block: str, where: str) -> Iterator[Command]:
    """The commands of a shell script.

    Raises:
        AssertionError: a program that is neither ours nor in SHELL or OTHERS.
    """
    for words in simple_commands(block):
        environment = {}
        while words and ASSIGNMENT.match(words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if words and words[0] == "export":
            environment = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            yield Command(where=where, text=shlex.join(words), environment=environment)
            continue
        if not words or words[0] in SHELL or Path(words[0]).name in OTHERS:
            continue
        text = shlex.join(words)
        words = words[1:] if words[0] == "srun" else words
        if words[0] == "make":
            yield Command(where=where, text=text, arguments=tuple(words), environment=environment)
        elif words[0] == "torchrun" or Path(words[0]).name == "python":
            if "-c" in words or words[1:2] == ["-"]:
                continue
            at = words.index("-m")
            counts = [word.split("=")[1] for word in words[:at] if re.match(r"--(nnodes|nproc-per-node)=\d+$", word)]
            yield Command(
                where=where,
                text=text,
                module=words[at + 1],
                arguments=tuple(words[at + 2 :]),
                environment=environment,
                ranks=math.prod(map(int, counts)),
            )
        else:
            raise AssertionError(f"{where}: {words[0]} in {text!r} is not a known program")


def simple_commands(block: str) -> Iterator[list[str]]:
    """The words of every simple command of a script, without here-documents."""
    lines = iter(block.splitlines())
    for line in lines:
        while line.endswith("\\") or not _is_closed(line):
            line = line.removesuffix("\\") + ("\n" if not line.endswith("\\") else "") + next(lines)
        if marker := re.search(r"<<'?(\w+)'?", line):
            for skipped in lines:
                if skipped.strip() == marker.group(1):
                    break
        lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(OPERATORS))
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= OPERATORS:
                yield words
                words = []
            else:
                words.append(word)
        yield words


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True
