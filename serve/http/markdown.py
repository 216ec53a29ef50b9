"""Markdown as a tree of plain values, from which the page makes elements: nothing that anybody wrote is ever read as HTML.

    tree_of("a *b* <i>") == [{"tag": "p", "children": ["a ", {"tag": "em", "children": ["b"]}, " <i>"]}]

HTML in the text is text, pictures are not fetched, and a link leads to the web or nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

_MOST = 1 << 16  # characters that are read; a card is a page or two
_BREAKS = {"softbreak": "\n", "hardbreak": "\n"}
_CODE = {"code_inline": "code", "fence": "pre", "code_block": "pre"}
_READER = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


def tree_of(text: str) -> list[Any]:
    """The blocks of a text: each is a text, or an object with `tag`, `children` and, of a link, `href`."""
    cut = [] if len(text) <= _MOST else [{"tag": "p", "children": ["(The rest is not shown.)"]}]
    return [*_trees(SyntaxTreeNode(_READER.parse(text[:_MOST])).children), *cut]


def _trees(nodes: Iterable[SyntaxTreeNode]) -> list[Any]:
    return [tree for node in nodes for tree in _tree(node)]


def _tree(node: SyntaxTreeNode) -> list[Any]:
    """What a node becomes: nothing, one thing, or what is in it."""
    if node.type == "text":
        return [node.content]
    if node.type in _BREAKS:
        return [_BREAKS[node.type]]
    if node.type in _CODE:
        return [{"tag": _CODE[node.type], "children": [node.content]}]
    children = _trees(node.children)
    if node.type == "link":
        href = str(node.attrs.get("href", ""))
        return [{"tag": "a", "href": href, "children": children}] if _leads_to_the_web(href) else children
    return [{"tag": node.tag, "children": children}] if node.tag and not node.hidden else children


def _leads_to_the_web(href: str) -> bool:
    try:
        return urlsplit(href).scheme in ("http", "https")
    except ValueError:
        return False
