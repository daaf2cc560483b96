"""A shipped text in Markdown (a runbook) as HTML.

Owns the reading of Markdown, so that whoever follows a page at 3 a.m. reads a text and not its marks. HTML in it stays
text. The library is imported when the first runbook is asked for: a daemon that nobody asks does not carry it.
"""

from functools import lru_cache

from markupsafe import Markup


@lru_cache(maxsize=32)
def as_html(text: str) -> Markup:
    r"""Return Markdown as HTML without scripts, styles or images.

    >>> print(as_html("## What\n\nNot *this* <b>, `web@2`."), end="")
    <h2>What</h2>
    <p>Not <em>this</em> &lt;b&gt;, <code>web@2</code>.</p>
    """
    from markdown_it import MarkdownIt  # noqa: PLC0415 - late on purpose

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return Markup(reader.render(text))  # noqa: S704  # escaped by the reader: html is off


def title_of(text: str) -> str:
    r"""Return the first heading of a Markdown text; empty when it does not begin with one.

    >>> title_of("# BatSignalLeak\n\n## Meaning"), title_of("Meaning")
    ('BatSignalLeak', '')
    """
    first = text.partition("\n")[0]
    return first.removeprefix("# ").strip() if first.startswith("# ") else ""
