"""The README of a study: its sections, the blocks that a command writes into it, and the list of all studies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markdown_it import MarkdownIt

from geoclip.errors import DataError

BEGIN = re.compile(r"^<!-- generated: ([^\s;]+)(?:; configuration (\w+))? -->\s*$")
END = re.compile(r"^<!-- end -->\s*$")


@dataclass(kw_only=True, slots=True, frozen=True)
class Readme:
    """A study's README, cut at its headings."""

    title: str
    sections: dict[str, str]  # Markdown by heading, in order, without the heading

    def section(self, name: str) -> str:
        """The text of the section whose heading begins with the name; empty where there is none."""
        return next((text for heading, text in self.sections.items() if heading.startswith(name)), "")


def generated_blocks(readme_text: str) -> dict[str, str]:
    """The names of a text's generated blocks, each with the hash of the configuration that it was made with."""
    found = (BEGIN.match(line) for line in readme_text.splitlines())
    return {begin.group(1): begin.group(2) or "" for begin in found if begin}


def fill_generated(
    readme_text: str, blocks: Mapping[str, str], configuration_hashes: Mapping[str, str] | None = None
) -> str:
    """The text with every `<!-- generated: NAME -->` … `<!-- end -->` holding its block and nothing else.

    Args:
        readme_text: Markdown.
        blocks: Markdown by the block's name.
        configuration_hashes: by the block's name, what its results were made with: it is written into the marker, as
            `<!-- generated: NAME; configuration 1a2b3c4d -->`.

    Raises:
        DataError: a block without its marker, a marker without its block or end, or one that stands there twice.
    """
    lines, seen, at = list[str](), list[str](), 0
    given = readme_text.splitlines()
    while at < len(given):
        begin = BEGIN.match(given[at])
        at += 1
        if begin is None:
            lines.append(given[at - 1])
            continue
        name = begin.group(1)
        used = (configuration_hashes or {}).get(name)
        lines.append(f"<!-- generated: {name}{f'; configuration {used}' if used else ''} -->")
        if name in seen:
            raise DataError(f"<!-- generated: {name} --> stands twice in the README; leave one of them")
        if name not in blocks:
            known = ", ".join(blocks) or "nothing"
            raise DataError(f"<!-- generated: {name} --> is written by no command; generated are: {known}")
        seen.append(name)
        while at < len(given) and not END.match(given[at]):
            if BEGIN.match(given[at]):
                break
            at += 1
        if at == len(given) or not END.match(given[at]):
            raise DataError(f"<!-- generated: {name} --> has no <!-- end --> after it in the README")
        lines += [blocks[name].strip("\n")] if blocks[name].strip() else []
    missing = [name for name in blocks if name not in seen]
    if missing:
        raise DataError(f"the README lacks the line <!-- generated: {missing[0]} -->, with <!-- end --> below it")
    return "\n".join(lines) + "\n"


def read_sections(text: str) -> Readme:
    """Cut at the headings of second order; what stands before the first is left out but for the title."""
    title, sections, lines = "", dict[str, str](), text.splitlines()
    tokens = MarkdownIt("commonmark").parse(text)
    heads = [(token, tokens[n + 1].content) for n, token in enumerate(tokens) if token.type == "heading_open"]
    cuts = [(token.map, content) for token, content in heads if token.tag == "h2" and token.level == 0]
    title = next((content for token, content in heads if token.tag == "h1"), "")
    for number, (place, heading) in enumerate(cuts):
        end = cuts[number + 1][0] if number + 1 < len(cuts) else None
        if place is not None:
            sections[heading] = "\n".join(lines[place[1] : end[0] if end else None]).strip()
    return Readme(title=title, sections=sections)


def first_words(text: str) -> str:
    """The first bullet, or the first sentence, as Markdown."""
    tokens = MarkdownIt("commonmark").parse(text)
    for number, token in enumerate(tokens):
        if token.type != "inline":
            continue
        words = " ".join(token.content.split())
        in_list = any(before.type == "list_item_open" for before in tokens[:number])
        return words if in_list else re.split(r"(?:(?<=[.!?])|(?<=[.!?]\*\*))\s+(?=[A-Z0-9σ\"(*`])", words)[0]
    return ""


def study_list(experiments: Path) -> str:
    """A Markdown table of every study that was run: its title as a link, its question, its verdict in a sentence."""
    rows = ["| study | question | what came out |", "|---|---|---|"]
    for path in sorted(experiments.glob("*/README.md")):
        folder = path.parent
        if not (folder / "results.json").is_file() and not any(folder.glob("*.png")):
            continue  # not run yet
        readme = read_sections(path.read_text(encoding="utf-8"))
        title, question = readme.title or folder.name, " ".join(readme.section("Question").split())
        verdict = first_words(readme.section("Verdict"))
        rows.append(f"| [{title}]({quote(folder.name)}/README.md) | {question} | {verdict} |")
    return "\n".join(rows)
