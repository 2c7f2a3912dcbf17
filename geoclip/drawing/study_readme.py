"""The README of a study: its sections, the blocks that a command writes into it, and Markdown as HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from geoclip.drawing.study_pictures import Picture
from geoclip.errors import DataError

BEGIN = re.compile(r"^<!-- generated: ([^\s;]+)(?:; configuration (\w+))? -->\s*$")
END = re.compile(r"^<!-- end -->\s*$")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
OUTSIDE = re.compile(r"^(?:https?:|mailto:|#)")

Address = Callable[[str], str]


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
        raise DataError(
            f"the README lacks the line <!-- generated: {missing[0]} -->, with <!-- end --> below it"
        )
    return "\n".join(lines) + "\n"


def without_generated(text: str, name: str) -> str:
    """The text without what stands in this block."""
    block = re.compile(
        rf"^<!-- generated: {re.escape(name)}(?:;[^\n]*)? -->$.*?^<!-- end -->$", re.DOTALL | re.MULTILINE
    )
    return block.sub("", text)


def read_sections(text: str) -> Readme:
    """Cut at the headings of second order; what stands before the first is left out but for the title."""
    title, sections, lines = "", dict[str, str](), text.splitlines()
    tokens = _parser().parse(text)
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
    tokens = _parser().parse(text)
    for number, token in enumerate(tokens):
        if token.type != "inline":
            continue
        words = " ".join(token.content.split())
        in_list = any(before.type == "list_item_open" for before in tokens[:number])
        return words if in_list else re.split(r"(?:(?<=[.!?])|(?<=[.!?]\*\*))\s+(?=[A-Z0-9σ\"(*`])", words)[0]
    return ""


def inline_html(text: str) -> str:
    """One line of Markdown as HTML, without links and pictures."""
    parser = _parser()
    tokens = parser.parseInline(text)
    for token in tokens:
        _rewrite(token.children or [], lambda _target: "")
    html: str = parser.renderer.render(tokens, parser.options, {"picture": lambda _source: None})
    return html


def section_html(text: str, *, link: Address, picture: Callable[[str], Picture | None]) -> str:
    """Markdown as HTML: tables in boxes that scroll, commands with a button, comments gone, raw HTML as text.

    Args:
        text: Markdown.
        link: from a relative address to one in the page; empty: the words stay, without a link.
        picture: from an address to the picture; None: the words that describe it stay.
    """
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        _rewrite(token.children or [], link)
    html: str = parser.renderer.render(tokens, parser.options, {"picture": picture})
    return html


def _rewrite(tokens: Sequence[Token], link: Address) -> None:
    """Links that would leave the file become words, but for those that the reader has to follow by hand."""
    open_links = list[Token]()
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrs.get("href", ""))
            address = target if OUTSIDE.match(target) else link(target)
            token.attrs = (
                {"href": address, "rel": "noopener noreferrer"} if address else {"class": "elsewhere"}
            )
            token.tag = "a" if address else "span"
            open_links.append(token)
        elif token.type == "link_close" and open_links:
            token.tag = open_links.pop().tag


def _parser() -> MarkdownIt:
    """GitHub's tables over CommonMark. HTML is recognised only to be left out or escaped."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    for name, rule in {
        "html_block": _raw,
        "html_inline": _raw,
        "image": _image,
        "fence": _fence,
        "table_open": lambda *_: '<div class="card"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }.items():
        # markdown-it calls a rule as a method of its renderer, which none of these needs
        parser.add_render_rule(name, lambda _self, *given, _rule=rule: _rule(*given))
    return parser


def _raw(tokens: Sequence[Token], at: int, _options: Any, _env: Any) -> str:
    text = COMMENT.sub("", tokens[at].content)
    return escape(text) if text.strip() else ""


def _image(tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    token = tokens[at]
    words = RendererHTML().renderInlineAsText(token.children, options, env)
    picture = env["picture"](str(token.attrs.get("src", "")))
    if picture is None:
        return f'<span class="elsewhere">{escape(words)}</span>'
    kind = ' class="chart"' if picture.is_chart else ""
    return f'<img{kind} src="{escape(picture.address)}" alt="{escape(words)}">'


def _fence(tokens: Sequence[Token], at: int, _options: Any, _env: Any) -> str:
    text = escape(tokens[at].content.rstrip("\n"))
    return f'<div class="command"><pre>{text}</pre><button type="button" hidden>copy</button></div>\n'
