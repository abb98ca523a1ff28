"""Style sheet and script of the report page.  The page says everything without the script, which only sorts and filters."""

from __future__ import annotations

CSS = """
header.top{border-bottom:1px solid var(--line);padding:3rem 0 1.6rem;margin-bottom:0}
.eyebrow{font-size:.85rem;color:var(--muted);margin:0 0 .5rem}
.lead{font-size:1.08rem;line-height:1.5;max-width:46rem;margin:.3rem 0 0}
.note{border-left:3px solid var(--accent);padding:.1rem 0 .1rem 1rem;margin:1.3rem 0 0;max-width:46rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr));gap:1.1rem 2rem;margin:1.8rem 0 0}
.facts dt{font-size:.8rem;color:var(--muted)}
.facts dd{margin:0;line-height:1.4}
.facts dd small{display:block;color:var(--muted);font-size:.82rem}
nav{position:sticky;top:0;z-index:2;background:var(--bg);border-bottom:1px solid var(--line);font-size:.92rem}
nav .wide{display:flex;gap:1.5rem;padding-top:.7rem;padding-bottom:.7rem;overflow-x:auto;white-space:nowrap}
nav a{text-decoration:none;color:var(--muted)}
nav a:hover{color:var(--accent)}
.scroll{overflow-x:auto}
table.overview{border-collapse:collapse;width:100%;margin:1rem 0 .4rem;font-size:.93rem}
.overview th,.overview td{white-space:nowrap;overflow-wrap:normal;padding:.55rem 1.2rem .55rem 0;
text-align:left;vertical-align:bottom;border-bottom:1px solid var(--line)}
.overview thead th{font-size:.82rem;font-weight:500;color:var(--muted);border-bottom-color:var(--muted)}
.overview tbody th{font-weight:500;padding-right:1.6rem}
.overview .num{padding-right:1.6rem}
.overview td>span.mean{display:inline-block;min-width:3.1em}
.overview svg{vertical-align:bottom;color:var(--accent);margin-left:.2rem}
.query{margin:1.8rem 0 0;border-top:1px solid var(--line);padding-top:1rem}
.query h3{font-size:1.1rem}
.hits{list-style:none;margin:.5rem 0 0;padding:0}
.hits li{display:grid;grid-template-columns:1.4rem minmax(9rem,13rem) 8.5rem 1fr;gap:.2rem 1rem;align-items:center;padding:.35rem 0}
.hits .rank{color:var(--muted);text-align:right;font-size:.88rem}
.hits .who{line-height:1.3;min-width:0}
.hits .who small{display:block;color:var(--muted);font-size:.8rem}
.bar{display:grid;grid-template-columns:1fr 3.2em;gap:.6rem;align-items:center;font-size:.9rem;text-align:right}
.bar i,.scores i{-webkit-print-color-adjust:exact;print-color-adjust:exact;display:block;height:4px;border-radius:2px;
background:linear-gradient(var(--accent),var(--accent)) 0/var(--v,0%) 100% no-repeat var(--soft)}
.strip{display:flex;flex-wrap:wrap;gap:4px;height:60px;overflow:hidden}
.strip .t{width:60px;height:60px;flex:none}
.t{display:block;aspect-ratio:1;border-radius:3px;background:var(--panel) center/contain no-repeat;box-shadow:inset 0 0 0 1px var(--line);
-webkit-print-color-adjust:exact;print-color-adjust:exact}
.controls{display:flex;flex-wrap:wrap;gap:.7rem 1rem;align-items:end;margin:1rem 0 1.2rem;font-size:.88rem}
.controls[hidden]{display:none}
.controls label{display:grid;gap:.2rem;color:var(--muted)}
.controls label.check{display:flex;gap:.4rem;align-items:center;padding-bottom:.5rem;color:var(--ink)}
.controls input[type=search],.controls select{font:inherit;font-size:.95rem;color:var(--ink);
background:var(--bg);border:1px solid var(--muted);border-radius:var(--radius);padding:0 .6rem;height:2.3rem;min-width:9rem;max-width:100%}
.controls input[type=search]{width:15rem}
.controls output{margin-left:auto;padding-bottom:.5rem;color:var(--muted)}
.tiles{list-style:none;margin:0;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,21.5rem),1fr));gap:1.1rem}
.tile{border:1px solid var(--line);border-radius:var(--radius);padding:.95rem 1rem 1rem;
content-visibility:auto;contain-intrinsic-size:auto 22rem;
display:flex;flex-direction:column;gap:.7rem;min-width:0}
.tile[hidden]{display:none}
.tile:target{outline:2px solid var(--accent);outline-offset:1px}
.tile header{display:grid;grid-template-columns:1fr auto;gap:0 .8rem;align-items:baseline}
.tile h3{font-size:1.05rem;line-height:1.3;display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden}
.tile h3.none{font-weight:450;color:var(--muted)}
.tile .cos{color:var(--accent);font-size:.92rem}
.tile .place{grid-column:1/-1;font-size:.82rem;color:var(--muted)}
.tile .place a{color:inherit;text-decoration:none}
.tile .place a:hover{color:var(--accent);text-decoration:underline}
.grid{display:grid;grid-template-columns:repeat(6,1fr);gap:4px}
.scores{display:grid;grid-template-columns:repeat(3,1fr);gap:.8rem;font-size:.8rem;margin:0}
.scores dt{color:var(--muted)}
.scores dd{margin:0}
.scores i{margin-top:.2rem}
.tile p{margin:0;font-size:.82rem;line-height:1.45;color:var(--muted)}
.tile p b{font-weight:500;color:var(--ink)}
.dead header~p{padding:.4rem 0}
.reading dl{display:grid;grid-template-columns:9rem 1fr;gap:.5rem 1.2rem;max-width:48rem;margin:1rem 0 0}
.reading dt{font-weight:600}
.reading dd{margin:0}
details{margin:1.2rem 0 0;font-size:.88rem}
summary{cursor:pointer;color:var(--muted)}
details pre{overflow-x:auto;background:var(--panel);border-radius:var(--radius);padding:1rem;font-size:.82rem;line-height:1.5;
white-space:pre-wrap;overflow-wrap:anywhere}
footer{border-top:1px solid var(--line);margin-top:3.5rem;padding:1.2rem 0 2rem;color:var(--muted);font-size:.85rem}
@media (max-width:760px){header.top{padding-top:1.8rem}
.hits li{grid-template-columns:1.4rem 1fr 7.5rem;padding:.6rem 0}
.hits .strip{grid-column:2/-1}
.strip{height:46px}.strip .t{width:46px;height:46px}
.controls label:not(.check),.controls input[type=search],.controls select{width:100%}
.controls output{margin-left:0}
.reading dl{grid-template-columns:1fr;gap:.1rem}.reading dd{margin-bottom:.7rem}}
@media print{nav,.controls,details{display:none!important}header.top{padding-top:0}.tile{content-visibility:visible;break-inside:avoid}
.tiles{grid-template-columns:repeat(2,1fr)}.query,.hits li{break-inside:avoid}}
"""

SCRIPT = """
(function () {
  "use strict";
  var list = document.querySelector(".tiles"), controls = document.querySelector(".controls");
  if (!list || !controls) return;
  var tiles = Array.prototype.slice.call(list.children);
  var words = document.getElementById("words"), layer = document.getElementById("layer"), order = document.getElementById("order");
  var named = document.getElementById("named"), shown = document.getElementById("shown");
  var items = tiles.map(function (tile, i) { return { tile: tile, place: i, data: tile.dataset, text: null }; });
  function number(item, key) { var v = parseFloat(item.data[key]); return isNaN(v) ? -Infinity : v; }
  function text(item) {
    if (item.text === null) item.text = item.tile.textContent.toLowerCase();
    return item.text;
  }
  function filter() {
    var parts = words.value.toLowerCase().split(/\\s+/).filter(Boolean), n = 0;
    items.forEach(function (item) {
      var keep = (layer.value === "" || item.data.l === layer.value) && !(named.checked && !("n" in item.data)) &&
        parts.every(function (part) { return text(item).indexOf(part) >= 0; });
      item.tile.hidden = !keep;
      if (keep) n++;
    });
    shown.textContent = n === items.length ? n + " components" : n + " of " + items.length + " components";
  }
  function sort() {
    var key = order.value.charAt(0), up = order.value.charAt(1) === "-" ? 1 : -1;
    items.sort(function (a, b) {
      if (key === "i") return a.place - b.place;
      var x = number(a, key), y = number(b, key);
      if (x === -Infinity || y === -Infinity) return x === y ? a.place - b.place : x === -Infinity ? 1 : -1;
      return x === y ? a.place - b.place : up * (x - y);
    });
    var all = document.createDocumentFragment();
    items.forEach(function (item) { all.appendChild(item.tile); });
    list.appendChild(all);
  }
  function reveal() {
    var target = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (target && target.hidden) {
      words.value = ""; layer.value = ""; named.checked = false; filter();
      target.scrollIntoView();
    }
  }
  words.addEventListener("input", filter);
  layer.addEventListener("change", filter);
  named.addEventListener("change", filter);
  order.addEventListener("change", sort);
  window.addEventListener("hashchange", reveal);
  controls.hidden = false;
  filter(); sort(); reveal();
})();
"""
