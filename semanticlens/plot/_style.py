"""The style sheet that notebook fragments and pages share: one set of colours, one type scale, light and dark, screen and paper."""

from __future__ import annotations

# Contrast of text against its ground is at least 4.5 : 1 in both schemes (WCAG 2.2, level AA).
TOKENS = """
:root{color-scheme:light dark;--bg:#fff;--panel:#f7f8f9;--ink:#1b1f24;--muted:#59616b;--line:#e1e4e8;
--accent:#275d91;--soft:#d5e2ee;--warm:#9a5119;
--warm-soft:#f0ddcf;--warn:#8a5a00;--radius:6px;
--sans:-apple-system,BlinkMacSystemFont,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,
"Liberation Sans",system-ui,sans-serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--panel:#1b1f23;--ink:#e4e7ea;--muted:#9ba5af;--line:#2e343a;
--accent:#82b4e2;--soft:#24394d;
--warm:#e3a272;--warm-soft:#47301f;--warn:#e0b25c}}
@media print{:root{color-scheme:light;--bg:#fff;--panel:#fff;--ink:#111;--muted:#444;--line:#bbb;--accent:#275d91;
--soft:#d5e2ee;--warm:#9a5119;--warm-soft:#f0ddcf;
--warn:#8a5a00}}
"""

PAGE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:4.5rem}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 var(--sans);font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
main,.wide{max-width:1180px;margin:0 auto;padding:0 1.5rem}
main{padding-bottom:4rem}
h1{font-size:1.9rem;line-height:1.2;font-weight:650;letter-spacing:-.015em;margin:0 0 .4rem;text-wrap:balance}
h2{font-size:1.25rem;line-height:1.3;font-weight:650;letter-spacing:-.005em;margin:3.2rem 0 .4rem}
h3{font-size:1rem;line-height:1.35;font-weight:650;margin:0}
p{margin:.5rem 0;max-width:44rem}
a{color:var(--accent);text-decoration-thickness:1px;text-underline-offset:.18em}
a:focus-visible,button:focus-visible,input:focus-visible,select:focus-visible,summary:focus-visible{
outline:2px solid var(--accent);outline-offset:2px}
code,.code{font-family:var(--mono);font-size:.88em}
.muted{color:var(--muted)}.small{font-size:.85rem}.num{text-align:right;white-space:nowrap}
.text{unicode-bidi:isolate}
.sl-strip{display:flex;flex-wrap:wrap;gap:4px}.sl-strip figure{margin:0}.sl-strip img{display:block;border-radius:3px}
@media (max-width:640px){body{font-size:15px}main,.wide{padding-left:1rem;padding-right:1rem}h1{font-size:1.5rem}h2{
margin-top:2.4rem}}
@media print{body{font-size:10pt}main,.wide{max-width:none;padding:0}a{color:inherit;text-decoration:none}h2,h3{
break-after:avoid}}
"""

# Fragments live inside other people's pages (notebooks, light or dark): they inherit colour and draw lines in translucent grey.
FRAGMENT = """
.sl-out{font-variant-numeric:tabular-nums;line-height:1.45;max-width:100%;overflow-x:auto;--sl-line:rgba(128,132,
138,.32);--sl-fill:rgba(66,122,178,.75);
--sl-soft:rgba(128,132,138,.18)}
.sl-out table.sl-table{border-collapse:collapse;margin:.2em 0 .4em;font-size:.92em;border:0}
.sl-out .sl-table caption{caption-side:top;text-align:left;padding:0 .7em .35em 0;font-weight:600;color:inherit}
.sl-out .sl-table th,.sl-out .sl-table td{padding:.28em .9em .28em 0;text-align:left;vertical-align:middle;border:0;
border-bottom:1px solid var(--sl-line);background:none;
max-width:34em;white-space:normal;overflow-wrap:anywhere}
.sl-out .sl-table thead th{font-weight:600;opacity:.75;border-bottom-width:2px;white-space:nowrap}
.sl-out .sl-table .sl-num{text-align:right;white-space:nowrap}
.sl-out .sl-table th.sl-num{text-align:right}
.sl-out .sl-table tr:last-child td{border-bottom:0}
.sl-out .sl-note{opacity:.75;font-size:.88em;margin:.2em 0}
.sl-out .sl-title{font-weight:600;margin:.2em 0 .3em}
.sl-out .sl-strip{display:flex;flex-wrap:wrap;gap:4px;margin:2px 0}
.sl-out .sl-strip figure{margin:0;line-height:1.2}
.sl-out .sl-strip img{display:block;border-radius:3px;margin:0;max-width:none;background:var(--sl-soft);
object-fit:cover}
.sl-out .sl-strip figcaption{font-size:.72em;opacity:.75;text-align:center;padding-top:1px}
.sl-out .sl-bar{display:inline-block;vertical-align:middle;width:5em;height:.5em;border-radius:2px;
background:var(--sl-soft);margin-right:.5em;overflow:hidden}
.sl-out .sl-bar i{display:block;height:100%;background:var(--sl-fill)}
.sl-out code{background:none;padding:0;color:inherit}
"""
