"""READMEs of studies: sections, generated blocks, and the list of all studies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from markdown_it import MarkdownIt

from geoclip.errors import DataError

BEGIN = re.compile(r"^<!-- generated: ([^\s;]+)(?:; configuration (\w+))? -->\s*$")
END = re.compile(r"^<!-- end -->\s*$")


@dataclass(kw_only=True, slots=True, frozen=True)
class Readme:
    """A study's README by section."""

    title: str
    sections: dict[str, str]  # Markdown by heading, in order, without the heading

    def section(self, name: str) -> str:
        """The text of the section whose heading begins with the name; empty if there is none."""
        return next((text for heading, text in self.sections.items() if heading.startswith(name)), "")


def generated_blocks(readme_text: str) -> dict[str, str]:
    """By name of a generated block, the hash of the configuration of its results."""
    found = (BEGIN.match(line) for line in readme_text.splitlines())
    return {begin.group(1): begin.group(2) or "" for begin in found if begin}


def fill_generated(
    readme_text: str, blocks: Mapping[str, str], configuration_hashes: Mapping[str, str] | None = None
) -> str:
    """Replace what is between every `<!-- generated: NAME -->` and its `<!-- end -->`.

    Blocks are Markdown by name. A configuration hash is written into the marker of its block, as
    `<!-- generated: NAME; configuration 1a2b3c4d -->`.

    Raises:
        DataError: a block without its marker, a marker without its block or end, or a marker twice.
    """
    lines, seen, current = list[str](), set[str](), ""  # current: the block that the line is in
    for line in readme_text.splitlines():
        begin = BEGIN.match(line)
        if current and begin:
            break
        if begin:
            current = begin.group(1)
            if current in seen:
                raise DataError(f"<!-- generated: {current} --> is in the README twice; delete one of them")
            if current not in blocks:
                known = ", ".join(blocks) or "nothing"
                raise DataError(f"<!-- generated: {current} --> is written by no command; there are: {known}")
            seen.add(current)
            used = (configuration_hashes or {}).get(current)
            lines.append(f"<!-- generated: {current}{f'; configuration {used}' if used else ''} -->")
            lines += [blocks[current].strip("\n")] if blocks[current].strip() else []
        elif current and END.match(line):
            current = ""
        if not (current or begin):
            lines.append(line)
    if current:
        raise DataError(f"<!-- generated: {current} --> has no <!-- end --> after it in the README")
    if missing := [name for name in blocks if name not in seen]:
        raise DataError(f"the README lacks the line <!-- generated: {missing[0]} -->, with <!-- end --> below it")
    return "\n".join(lines) + "\n"


def read_sections(text: str) -> Readme:
    """Split at the headings of level 2; of what is before the first, only the title is kept."""
    tokens, lines = MarkdownIt("commonmark").parse(text), text.splitlines()
    heads = [(token, following.content) for token, following in pairwise(tokens) if token.type == "heading_open"]
    title = next((content for token, content in heads if token.tag == "h1"), "")
    cuts = [(token.map or [0, 0], content) for token, content in heads if token.tag == "h2" and token.level == 0]
    ends = [*(first for (first, _), _ in cuts[1:]), len(lines)]
    sections = {
        heading: "\n".join(lines[start:end]).strip() for ((_, start), heading), end in zip(cuts, ends, strict=False)
    }
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
    """A Markdown table of the studies that were run: title as a link, question, first sentence of the verdict."""
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
