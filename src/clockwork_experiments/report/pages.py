"""Show Markdown as HTML pages that need nothing but a browser."""

from __future__ import annotations

import html

from markdown_it import MarkdownIt

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5em; color: #222; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #888; position: sticky; top: 0; background: #fff; }
tbody tr:hover { background: #f4f4f4; }
p, li { max-width: 60em; }
"""


def to_fragment(markdown: str) -> str:
    """Return Markdown as HTML, tables included; HTML within it stays text."""
    text: str = (
        MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    )
    return text


def to_page(markdown: str, title: str) -> str:
    """Return Markdown as a whole page, its style within."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{to_fragment(markdown)}</body>\n</html>\n"
    )
