"""Style sheet of the pages about alignment, on top of that of the concept report."""

from __future__ import annotations

CSS = """
h3.sub{margin-top:1.9rem}
table.heat{border-collapse:separate;border-spacing:2px;margin:1.2rem 0 .4rem;font-size:.82rem;line-height:1.25}
.heat th{font-weight:500;color:var(--muted);white-space:nowrap;overflow-wrap:normal;text-align:right;padding:0 .5rem 0 0}
.heat thead th{padding:0 0 .4rem;vertical-align:bottom;text-align:left}
.heat thead th span{writing-mode:vertical-rl;transform:rotate(180deg);display:inline-block;max-height:13rem}
.heat thead tr.nets th{padding:0 0 .5rem .2rem;color:var(--ink);text-align:left}
.heat td{min-width:3.4rem;height:2.5rem;text-align:center;border-radius:3px;padding:0 .2rem;
background:rgb(39 93 145/calc(var(--v)*.92 + .04));-webkit-print-color-adjust:exact;print-color-adjust:exact}
.heat td.self{background:none;color:var(--muted)}
.heat td.hi{color:#fff}
.heat td small{display:block;font-size:.72rem;opacity:.8}
.heat td.best{outline:2px solid var(--warm);outline-offset:-2px}
.heat .gap{min-width:.7rem;width:.7rem;background:none;height:auto}
.heat.small td{min-width:2.5rem;height:1.9rem;font-size:.76rem}
@media (prefers-color-scheme:dark){.heat td{background:rgb(130 180 226/calc(var(--v)*.8 + .05))}.heat td.hi{color:#10151a}.heat
td.self{background:none}}
@media print{.heat td.hi{color:#fff}.heat td{background:rgb(39 93 145/calc(var(--v)*.92 + .04))}}
.counts{display:flex;height:1.1rem;border-radius:3px;overflow:hidden;margin:.7rem 0 .3rem;max-width:44rem;gap:2px}
.counts i{display:block;min-width:3px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.k0{background:var(--accent)}.k1{background:color-mix(in srgb,var(--accent) 55%,var(--bg))}
.k2{background:color-mix(in srgb,var(--warm) 50%,var(--bg))}.k3{background:var(--warm)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;font-size:.85rem;color:var(--muted);margin:0}
.legend i{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.4em}
.relation{display:grid;grid-template-columns:1fr 6.5rem 1fr;gap:.4rem 1.2rem;align-items:center;padding:.8rem 0;border-top:1px
solid var(--line)}
.relation.head{border:0;padding:.6rem 0 .3rem;font-size:.85rem;color:var(--muted)}
.relation>div{min-width:0}
.relation .middle{text-align:center;font-size:.85rem;line-height:1.35;color:var(--muted)}
.relation .middle b{display:block;font-size:1.05rem;font-weight:600;color:var(--ink)}
.relation .middle .bar,.alone .bar{display:block;height:4px;border-radius:2px;margin:.3rem auto;max-width:4.5rem;
background:linear-gradient(var(--accent),var(--accent)) 0/var(--v,0%) 100% no-repeat var(--soft);
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.concept+.concept{margin-top:.8rem}
.concept p{margin:0 0 .35rem;font-size:.88rem;line-height:1.4}
.concept p b{font-weight:600}
.concept p small{color:var(--muted);font-size:.82rem}
.concept .strip{height:52px}.concept .strip .t{width:52px;height:52px}
.alone{list-style:none;margin:.8rem 0
0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1.1rem 1.6rem}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 2.4rem}
.graph{margin:1rem 0 0}
.graph svg{display:block}
.graph path{fill:none;stroke:var(--accent)}
.graph text{fill:var(--muted);font:12px var(--sans)}
.graph .t{width:100%;height:100%;border-radius:4px;background-size:cover}
.graph
.dot{display:block;width:100%;height:100%;border-radius:50%;background:var(--soft);color:var(--ink);font-size:11px;line-height:34px;text-align:center}
.map{border:1px solid var(--line);border-radius:var(--radius);margin:1.2rem 0;background:var(--panel)}
.map svg{display:block;width:100%;height:auto}
.map .t{width:100%;height:100%;border-radius:4px;background-size:cover}
.map text{font:600 13px var(--sans);fill:var(--ink);paint-order:stroke;stroke:var(--panel);stroke-width:4px;stroke-linejoin:round}
@media (max-width:760px){.relation{grid-template-columns:1fr;gap:.5rem}.relation.head{display:none}.relation .middle{text-align:left}
.relation .middle b{display:inline}.relation .middle .bar{margin-left:0}.two{grid-template-columns:1fr}}
@media print{.relation{break-inside:avoid}}
"""
