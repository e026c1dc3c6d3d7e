"""Sections as one HTML file that needs nothing else: pictures inside, and no scripts."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from dmaml.common.errors import ConfigError
from dmaml.common.places import require_place
from dmaml.report.section import Section, Shown, Table, rendered

PAGE: Final = "report.html"
PICTURES: Final = "pictures"
_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; }
p.lead, figcaption { color: #444; }
p.note { border-left: 3px solid #d55e00; padding-left: .7rem; }
nav { font-size: .9rem; } nav a { margin-right: .9rem; color: #0072b2; white-space: nowrap; }
figure { margin: .8rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; max-width: 50rem; }
table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0 1.1rem; display: block;
        overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { padding: .16rem .8rem .16rem 0; text-align: left; border-bottom: 1px solid #e4e4e4;
         vertical-align: top; overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } nav { display: none; } }
"""


@dataclass(frozen=True)
class Document:
    """A report, ready to be written.

    Attributes:
        html: the page.
        pictures: file name -> content, PNG and SVG of each figure.
    """

    html: str
    pictures: dict[str, bytes]


def document(
    title: str, lead: str, sections: Sequence[Section], notes: Sequence[str] = ()
) -> Document:
    """Return the page and its pictures.

    Args:
        lead: a sentence below the title.
        notes: what is missing in this report, and why.
    """
    pictures: dict[str, bytes] = {}
    parts = []
    for number, section in enumerate(sections):
        inner = [f"<p>{escape(text)}</p>" for text in section.text]
        inner += [_figure(shown, pictures) for shown in section.figures]
        inner += [_table(table) for table in section.tables]
        heading = f'<h2 id="s{number}">{escape(section.title)}</h2>'
        parts.append("<section>" + "\n".join([heading, *inner]) + "</section>")
    # a space between two links: without one the line has no place to break
    links = " ".join(f'<a href="#s{n}">{escape(s.title)}</a>' for n, s in enumerate(sections))
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        f"<nav>{links}</nav>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        *parts,
    ]
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    return Document(html, pictures)


def require_folder(folder: Path) -> None:
    """Raise before a report is made unless it can be written there.

    Raises:
        ConfigError: it cannot.
    """
    what = f"report folder {str(folder)!r}"
    require_place(folder / PICTURES / PAGE, what, "Name another with --out.")


def write(made: Document, folder: Path) -> Path:
    """Write a report into a folder and return the path of its page.

    Each file is written under another name first and then renamed, the page last: whatever happens,
    no file is half written and no page lacks a picture.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        for name, data in made.pictures.items():
            _replace(folder / PICTURES / name, data)
        _replace(folder / PAGE, made.html.encode())
    except OSError as error:
        raise ConfigError(
            f"report folder {str(folder)!r} cannot be written: {error.strerror}. "
            "Name another with --out."
        ) from None
    return folder / PAGE


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _figure(shown: Shown, pictures: dict[str, bytes]) -> str:
    png, svg = rendered(shown.figure)
    pictures[f"{shown.name}.png"], pictures[f"{shown.name}.svg"] = png, svg
    kind, data = ("svg+xml", svg) if shown.is_vector else ("png", png)
    width = round(shown.figure.get_figwidth() * 96)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    caption = escape(shown.caption)
    return (
        f'<figure><img src="{source}" width="{width}" alt="{escape(shown.name)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    head = ""
    if any(table.columns):
        head = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in table.columns) + "</tr>"
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f"<table>{caption}{head}{rows}</table>"
