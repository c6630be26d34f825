"""HTML that needs nothing else: sections, tables that sort and filter, pictures inside the file, light and dark.

A table scrolls inside its own box, so that the page itself never scrolls sideways. Without JavaScript everything is still there to read.
"""

import base64
import html
import io
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """Returns the page of sections `(title, body)`; those without a body are left out."""
    kept = [(name, body) for name, body in sections if body]
    links = "".join(f"<a href='#{_anchor(name)}'>{html.escape(name)}</a>" for name, _ in kept)
    bodies = "".join(f"<section id='{_anchor(name)}'><h2>{html.escape(name)}</h2>{body}</section>" for name, body in kept)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{html.escape(title)}</h1><nav>{links}</nav>"
        f"<button id='theme' type='button' title='light or dark'>◐</button></header>"
        f"<main>{bodies}</main><script>{_SCRIPT}</script></body></html>"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table that sorts by a click on a heading; one of several rows has a field that filters them."""
    head = "".join(f"<th scope='col' tabindex='0'>{_breakable(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    field = "<input class='filter' type='search' placeholder='filter rows' aria-label='filter rows'>" if len(rows) > 1 else ""
    return (
        f"<div class='table'>{field}<div class='scroll'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _cell(text: str) -> str:
    """Returns a cell; a spread stands in small print below its mean."""
    mean, sign, spread = text.partition(" ± ")
    return _breakable(mean) + (f" <small>± {html.escape(spread)}</small>" if sign else "")


def _breakable(text: str) -> str:
    """Returns text that may go on in a new line after a slash, an underscore or a plus."""
    return re.sub(r"([/_+])", r"\1<wbr>", html.escape(text))


def folded(summary: str, body: str, *, opened: bool = False) -> str:
    """Returns something that a click on its summary shows."""
    return f"<details{' open' if opened else ''}><summary>{html.escape(summary)}</summary>{body}</details>"


def note(text: str) -> str:
    """Returns a paragraph in small print."""
    return f"<p class='note'>{html.escape(text)}</p>"


def code(text: str) -> str:
    """Returns text as it stands, in a box that scrolls."""
    return f"<pre class='scroll'>{html.escape(text)}</pre>"


def beside(parts: Sequence[str]) -> str:
    """Returns parts beside each other where the page is wide enough."""
    return f"<div class='beside'>{''.join(parts)}</div>" if parts else ""


def figure(drawn: plt.Figure, name: str) -> str:
    """Returns a figure as a picture, and closes it."""
    out = io.BytesIO()
    drawn.savefig(out, format="png", dpi=160)
    plt.close(drawn)
    return picture(out.getvalue(), name)


def picture(png: bytes, name: str) -> str:
    """Returns a picture with its name below; a click shows it in its full size."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    text = html.escape(name)
    return f"<figure><div class='scroll'><img alt='{text}' src='{source}'></div><figcaption>{text}</figcaption></figure>"


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


_STYLE = """
:root { color-scheme: light; --back: #fff; --card: #f5f6f8; --text: #1d2330; --soft: #5c6575; --line: #d9dde4; --mark: #2563be }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {
  color-scheme: dark; --back: #14171d; --card: #1d222b; --text: #e6e9ef; --soft: #9aa4b5; --line: #343b48; --mark: #7fb0ff } }
:root[data-theme=dark] {
  color-scheme: dark; --back: #14171d; --card: #1d222b; --text: #e6e9ef; --soft: #9aa4b5; --line: #343b48; --mark: #7fb0ff }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif }
header, main { max-width: 1800px; margin: 0 auto; padding: 0 24px }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 20px; padding-top: 14px; padding-bottom: 10px }
h1 { font-size: 1.35em; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.15em; margin: 28px 0 10px }
nav { display: flex; flex-wrap: wrap; gap: 2px 14px; flex: 1 } a { color: var(--mark); text-decoration: none }
a:hover { text-decoration: underline }
button, input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 3px 10px }
.filter { width: 220px; max-width: 100%; margin-bottom: 6px }
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
th, td { padding: 4px 7px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
td:first-child, th:first-child { min-width: 9em; max-width: 18em; white-space: normal } td small { display: block; color: var(--soft); font-size: .8em; line-height: 1.1 }
th { white-space: normal; cursor: pointer; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); vertical-align: bottom }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back) }
th[aria-sort=ascending]::after { content: " \\25B2" } th[aria-sort=descending]::after { content: " \\25BC" }
tbody tr:hover td { background: var(--card) }
details { border: 1px solid var(--line); border-radius: 8px; margin: 8px 0; padding: 0 12px }
details[open] { padding-bottom: 12px } summary { cursor: pointer; padding: 8px 0; overflow-wrap: anywhere }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px }
figure { margin: 8px 0; min-width: 0 } figcaption, .note { color: var(--soft); font-size: .92em }
.note { margin: 8px 0; max-width: 100ch; overflow-wrap: anywhere }
img { display: block; max-width: 100%; margin: 0 auto; background: #fff; border-radius: 6px; cursor: zoom-in }
.beside img { max-height: 420px } .full img { max-width: none; max-height: none; cursor: zoom-out }
pre { background: var(--card); padding: 10px; border-radius: 6px; font-size: .85em }
@media (max-width: 600px) {
  header, main { padding-left: 12px; padding-right: 12px } .filter { width: 100% }
  th:first-child, td:first-child { min-width: 7.5em; max-width: 9em } }
"""

_SCRIPT = """
const root = document.documentElement
const dark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark'
const number = cell => { const n = parseFloat(cell.textContent.replace(',', '')); return isNaN(n) ? null : n }
const text = cell => cell.textContent.trim()
function compare(a, b, numeric, sign) {
  if (!text(a) !== !text(b)) return text(a) ? -1 : 1
  return sign * (numeric ? number(a) - number(b) : text(a).localeCompare(text(b), undefined, { numeric: true }))
}
function sort(heading) {
  const table = heading.closest('table'), body = table.tBodies[0], i = heading.cellIndex, rows = [...body.rows]
  const cells = rows.map(row => row.cells[i]).filter(text)
  const numeric = cells.every(cell => number(cell) !== null && /^[-+.\\d\\s\\u00b1()e%,]+$/.test(text(cell)))
  const descending = heading.ariaSort ? heading.ariaSort === 'ascending' : numeric
  for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort')
  heading.setAttribute('aria-sort', descending ? 'descending' : 'ascending')
  body.append(...rows.sort((a, b) => compare(a.cells[i], b.cells[i], numeric, descending ? -1 : 1)))
}
document.addEventListener('click', event => {
  const heading = event.target.closest('th')
  if (heading) sort(heading)
  if (event.target.matches('img')) event.target.parentElement.classList.toggle('full')
  if (event.target.id === 'theme') root.dataset.theme = dark() ? 'light' : 'dark'
})
document.addEventListener('keydown', event => { if (event.key === 'Enter' && event.target.matches('th')) sort(event.target) })
document.addEventListener('input', event => {
  if (!event.target.matches('.filter')) return
  const words = event.target.value.toLowerCase().split(/\\s+/)
  for (const row of event.target.parentElement.querySelector('tbody').rows)
    row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word))
})
"""
