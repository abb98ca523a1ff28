"""Style sheet and script of the map page. The script draws discs into a buffer of pixels: a redraw costs the same without a GPU."""

from __future__ import annotations

CSS = """
html,body{height:100%}
body{display:flex;flex-direction:column;min-height:100dvh;overflow-wrap:anywhere}
.head{padding:.9rem 1.25rem .6rem}
.head h1{font-size:1.35rem;margin:0}
.head p{margin:.15rem 0 0;color:var(--muted);font-size:.9rem;max-width:none}
.tools{display:flex;flex-wrap:wrap;gap:.5rem .9rem;align-items:center;padding:0 1.25rem .7rem;font-size:.9rem}
.tools label{display:flex;gap:.45rem;align-items:center;color:var(--muted)}
.tools input,.tools select,.tools button,.legend button,.found button,.card button{font:inherit;color:var(--ink);background:var(--bg);
border:1px solid var(--muted);border-radius:var(--radius)}
.tools input,.tools select{height:2.25rem;padding:0 .6rem;max-width:100%}
.tools input{width:14rem}
.tools button{height:2.25rem;min-width:2.25rem;padding:0 .6rem;cursor:pointer}
.tools button:hover,.legend button:hover,.found button:hover{border-color:var(--accent);color:var(--accent)}
.tools output{color:var(--muted)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem .5rem;align-items:center;min-height:2rem;font-size:.85rem;color:var(--muted)}
.legend button{border-color:var(--line);border-radius:1rem;padding:.12rem .65rem .12rem .5rem;cursor:pointer;line-height:1.4;
max-width:16rem;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.legend button[aria-pressed=true]{border-color:var(--accent);box-shadow:inset 0 0 0 1px var(--accent)}
.legend i{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
.legend .ramp{width:9rem;height:.7rem;border-radius:3px;display:inline-block}
.stage{position:relative;flex:1 1 auto;min-height:24rem;border-top:1px solid var(--line);overflow:hidden}
.stage canvas.map{position:absolute;inset:0;width:100%;height:100%;touch-action:none;cursor:grab;outline-offset:-3px}
.stage canvas.map:active{cursor:grabbing}
.stage canvas.map:focus-visible{outline:2px solid var(--accent)}
.ring{position:absolute;border:2px solid var(--ink);border-radius:50%;pointer-events:none;box-sizing:border-box}
.card{position:absolute;width:19rem;max-width:calc(100% - 1rem);
background:var(--bg);border:1px solid var(--muted);border-radius:var(--radius);
padding:.75rem .9rem .8rem;font-size:.88rem;line-height:1.4;pointer-events:none;box-shadow:0 4px 18px rgb(0 0 0/.16)}
.card.kept{pointer-events:auto}
.card h2{font-size:1rem;margin:0;padding-right:1.6rem}
.card h2.none{font-weight:450;color:var(--muted)}
.card p{margin:.1rem 0 0;color:var(--muted)}
.card canvas{display:block;width:100%;height:auto;margin:.6rem 0 0;border-radius:3px}
.card dl{display:grid;grid-template-columns:1fr auto;gap:.05rem .8rem;margin:.55rem 0 0}
.card dt{color:var(--muted)}.card dd{margin:0;text-align:right}
.card button{position:absolute;right:.4rem;top:.4rem;width:1.9rem;height:1.9rem;
border-color:transparent;background:none;cursor:pointer;display:none}
.card.kept button{display:block}
.found{position:absolute;left:.6rem;top:.6rem;max-height:calc(100% - 1.2rem);
width:15rem;max-width:60%;overflow-y:auto;list-style:none;margin:0;
padding:.3rem;background:var(--bg);border:1px solid var(--line);border-radius:var(--radius);font-size:.85rem}
.found button{display:block;width:100%;text-align:left;border-color:transparent;padding:.25rem .45rem;cursor:pointer;line-height:1.35}
.found small{color:var(--muted);display:block}
.foot{padding:.5rem 1.25rem .6rem;border-top:1px solid var(--line);font-size:.82rem;color:var(--muted)}
.foot summary{cursor:pointer}.foot p{max-width:60rem;margin:.35rem 0 0}
kbd{font:inherit;border:1px solid var(--line);border-radius:3px;padding:0 .3em}
[hidden]{display:none!important}
@media (max-width:640px){.head{padding:.7rem 1rem .5rem}.tools,.foot{padding-left:1rem;padding-right:1rem}
.tools label{flex:1 1 100%}.tools input,.tools select{flex:1 1 auto;width:auto;min-width:0;font-size:16px}
.tools button,.tools input,.tools select{height:2.6rem;min-width:2.6rem}
.stage{min-height:62dvh}.card{left:.5rem!important;right:.5rem;top:auto!important;bottom:.5rem;width:auto;max-width:none;
max-height:60%;overflow-y:auto}
.card dl{grid-template-columns:1fr auto 1fr auto;column-gap:.9rem}
.found{max-height:34%;width:auto;max-width:calc(100% - 1.2rem)}}
@media print{.tools,.foot,.found,.card{display:none!important}.stage{height:16cm;min-height:0}}
"""

SCRIPT = """
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("map-data").textContent);
  function el(id) { return document.getElementById(id); }
  function raw(text) {
    var s = atob(text), out = new Uint8Array(s.length);
    for (var i = 0; i < s.length; i++) out[i] = s.charCodeAt(i);
    return out.buffer;
  }
  var n = data.n, X = new Float32Array(raw(data.x)), Y = new Float32Array(raw(data.y));
  var layer = new Uint16Array(raw(data.layer)), comp = new Uint32Array(raw(data.component)), label = new Int32Array(raw(data.label));
  var examples = data.pictures ? new Int32Array(raw(data.pictures.examples)) : null;
  data.colourings.forEach(function (c) { c.q = new Uint16Array(raw(c.q)); });
  var low = data.names.map(function (s) { return s.toLowerCase(); });
  var layerLow = data.layers.map(function (s) { return s.toLowerCase(); });

  var canvas = document.querySelector("canvas.map"), stage = canvas.parentNode, ctx = canvas.getContext("2d");
  var card = document.querySelector(".card"), ring = document.querySelector(".ring"), found = document.querySelector(".found");
  var words = el("words"), choice = el("colour"), shown = el("shown"), legend = document.querySelector(".legend");
  var PAD = 24, buffer = null, px = null, W = 0, H = 0, BW = 0, dpr = 1, cssW = 0, cssH = 0;
  var view = { x: 0.5, y: 0.5, s: 1 }, fit = 1, colouring = data.colourings[0], theme = {};
  var state = new Uint8Array(n).fill(1), filtered = false, matches = [], only = -1, hover = -1, kept = -1, queued = false;
  var times = new Float32Array(240), drawn = 0;

  // Dots are drawn in mixed order: else the last layer would lie on top of all others.
  var order = new Uint32Array(n), stride = Math.max(1, Math.floor(n * 0.618));
  function common(a, b) { return b ? common(b, a % b) : a; }
  while (common(stride, n) > 1) stride++;
  for (var turn = 0; turn < n; turn++) order[turn] = turn * stride % n;

  // ------------------------------------------------------------------ colours
  var point = new Uint8Array(n), full = new Uint32Array(256), dim = new Uint32Array(256);
  function rgb(hex) { return [1, 3, 5].map(function (i) { return parseInt(hex.slice(i, i + 2), 16); }); }
  function mix(a, b, t) { return [0, 1, 2].map(function (i) { return Math.round(a[i] + (b[i] - a[i]) * t); }); }
  function pack(c) { return (0xff000000 | (c[2] << 16) | (c[1] << 8) | c[0]) >>> 0; }
  function css(c) { return "rgb(" + c.join(",") + ")"; }
  var ramp = data.ramp.map(rgb), kinds = data.kinds.map(rgb);
  function onRamp(t) {
    var at = Math.min(Math.max(t, 0), 1) * (ramp.length - 1), i = Math.min(Math.floor(at), ramp.length - 2);
    return mix(ramp[i], ramp[i + 1], at - i);
  }
  function kindColour(i, count) { return count <= kinds.length ? kinds[i] : onRamp(count > 1 ? i / (count - 1) : 0.5); }
  function readTheme() {
    var style = getComputedStyle(document.documentElement);
    function hex(name) {
      var v = style.getPropertyValue(name).trim();
      return rgb(v.length === 4 ? "#" + v[1] + v[1] + v[2] + v[2] + v[3] + v[3] : v);
    }
    theme = { bg: hex("--bg"), ink: hex("--ink"), muted: hex("--muted") };
    labels.clear();
  }
  function colour() {
    var c = colouring, count = c.kinds ? c.kinds.length : 0, i;
    for (i = 0; i < 255; i++) {
      var t = c.kinds ? kindColour(Math.min(i, count - 1), count) : onRamp(i / 254);
      full[i] = pack(t);
      dim[i] = pack(mix(theme.bg, t, 0.16));
    }
    full[255] = pack(mix(theme.bg, theme.muted, 0.55));
    dim[255] = pack(mix(theme.bg, theme.muted, 0.12));
    var span = c.high > c.low ? c.high - c.low : 1, step = (c.max - c.min) / 65534;
    for (i = 0; i < n; i++) {
      var q = c.q[i];
      if (q === 65535) point[i] = 255;
      else if (c.kinds) point[i] = Math.min(q, 254);
      else point[i] = Math.max(0, Math.min(254, Math.round((c.min + q * step - c.low) / span * 254)));
    }
    drawLegend();
  }
  function number(v) {
    var a = Math.abs(v);
    if (v === 0) return "0";
    return (a >= 1e5 || a < 1e-4 ? v.toExponential(2) : a >= 100 ? v.toFixed(0) : v.toFixed(a >= 10 ? 1 : 3)).replace("-", "\\u2212");
  }
  function grouped(count) { return String(count).replace(/\\B(?=(\\d{3})+$)/g, "\\u202f"); }
  function drawLegend() {
    var c = colouring, i;
    legend.textContent = "";
    if (!c.kinds) {
      var bar = document.createElement("span"), stops = [];
      bar.className = "ramp";
      for (i = 0; i <= 8; i++) stops.push(css(onRamp(i / 8)));
      bar.style.background = "linear-gradient(90deg," + stops.join(",") + ")";
      legend.append(number(c.low), bar, number(c.high));
      var about = document.createElement("span");
      about.textContent = c.about;
      legend.append(about);
      if (c.undefined) {
        var dot = document.createElement("i"), note = document.createElement("span");
        dot.style.background = css(mix(theme.bg, theme.muted, 0.55));
        note.append(dot, "undefined (" + c.undefined + ")");
        legend.append(note);
      }
      return;
    }
    c.kinds.forEach(function (name, k) {
      if (k >= 40) return;
      var b = document.createElement("button"), d = document.createElement("i");
      b.type = "button";
      b.title = name + ": show only these";
      d.style.background = css(kindColour(k, c.kinds.length));
      b.append(d, name);
      b.setAttribute("aria-pressed", only === k ? "true" : "false");
      b.addEventListener("click", function () { only = only === k ? -1 : k; drawLegend(); filter(false); });
      legend.append(b);
    });
    if (c.kinds.length > 40) legend.append("and " + (c.kinds.length - 40) + " more");
  }

  // ------------------------------------------------------------------ view
  function sx(x) { return (x - view.x) * view.s + cssW / 2; }
  function sy(y) { return cssH / 2 - (y - view.y) * view.s; }
  function bound() {
    view.s = Math.min(Math.max(view.s, fit * 0.6), fit * 400);
    view.x = Math.min(Math.max(view.x, data.box[0]), data.box[2]);
    view.y = Math.min(Math.max(view.y, data.box[1]), data.box[3]);
  }
  function whole() {
    var w = data.box[2] - data.box[0] || 1e-3, h = data.box[3] - data.box[1] || 1e-3, edge = Math.min(48, cssW * 0.08);
    fit = Math.min((cssW - 2 * edge) / w, (cssH - 2 * edge) / h);
    return { x: (data.box[0] + data.box[2]) / 2, y: (data.box[1] + data.box[3]) / 2, s: fit };
  }
  function zoomAt(factor, mx, my) {
    var x = view.x + (mx - cssW / 2) / view.s, y = view.y - (my - cssH / 2) / view.s;
    view.s *= factor;
    bound();
    view.x = x - (mx - cssW / 2) / view.s;
    view.y = y + (my - cssH / 2) / view.s;
    bound();
    redraw();
  }
  function panBy(dx, dy) { view.x -= dx / view.s; view.y += dy / view.s; bound(); redraw(); }
  var flight = 0;
  function fly(goal) {
    cancelAnimationFrame(flight);
    var from = { x: view.x, y: view.y, s: view.s }, begin = performance.now();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) { view = goal; bound(); redraw(); return; }
    (function step(now) {
      var t = Math.min(1, Math.max(0, (now - begin) / 260)), e = t * (2 - t);
      view.s = from.s * Math.pow(goal.s / from.s, e);
      view.x = from.x + (goal.x - from.x) * e;
      view.y = from.y + (goal.y - from.y) * e;
      bound();
      redraw();
      if (t < 1) flight = requestAnimationFrame(step);
    })(begin);
  }
  function resize() {
    var old = cssW ? view.s / fit : 0;
    cssW = stage.clientWidth; cssH = stage.clientHeight; dpr = Math.min(window.devicePixelRatio || 1, 2);
    W = Math.max(1, Math.round(cssW * dpr)); H = Math.max(1, Math.round(cssH * dpr)); BW = W + 2 * PAD;
    canvas.width = W; canvas.height = H;
    buffer = ctx.createImageData(BW, H + 2 * PAD);
    px = new Uint32Array(buffer.data.buffer);
    var all = whole();
    if (old) { view.s = fit * old; bound(); } else view = all;
    paint();
  }

  // ------------------------------------------------------------------ drawing
  function radius() {
    var first = Math.min(4.2, Math.max(1.3, 0.2 * fit / Math.sqrt(n)));
    return Math.min(9, first * Math.pow(Math.max(view.s / fit, 1), 0.38));
  }
  var disc = { r: -1 };
  function makeDisc(r) {
    var strong = 150 * Math.min(Math.max((r / dpr - 1.4) / 1.2, 0), 1), R = r + 0.9 * dpr, k = Math.ceil(R), at = [], halo = [], core = [];
    for (var y = -k; y <= k; y++) for (var x = -k; x <= k; x++) {
      var d = Math.sqrt(x * x + y * y), c = Math.min(Math.max(r + 0.5 - d, 0), 1), h = Math.min(Math.max(R + 0.5 - d, 0), 1);
      if (c > 0 || h * strong > 0) { at.push(y * BW + x); halo.push(Math.round(h * strong)); core.push(Math.round(c * 256)); }
    }
    disc = { r: r, w: BW, at: Int32Array.from(at), halo: Uint16Array.from(halo), core: Uint16Array.from(core) };
  }
  function blend(d, s, a) {
    var b = 256 - a;
    var outer = ((s & 0xff00ff) * a + (d & 0xff00ff) * b) >>> 8 & 0xff00ff, inner = ((s & 0xff00) * a + (d & 0xff00) * b) >>> 8 & 0xff00;
    return (0xff000000 | outer | inner) >>> 0;
  }
  function discs(which, palette, bg) {
    var at = disc.at, halo = disc.halo, core = disc.core, m = at.length, s = view.s * dpr;
    var ox = W / 2 - view.x * s, oy = H / 2 + view.y * s, edge = PAD - 2 - Math.ceil(disc.r + dpr), inView = 0;
    for (var k = 0; k < n; k++) {
      var i = order[k];
      if (state[i] !== which) continue;
      var x = Math.round(X[i] * s + ox), y = Math.round(oy - Y[i] * s);
      if (x < -edge || y < -edge || x >= W + edge || y >= H + edge) continue;
      inView++;
      var o = (y + PAD) * BW + x + PAD, c = palette[point[i]];
      for (var j = 0; j < m; j++) {
        var p = o + at[j], a = core[j];
        if (a === 256) px[p] = c;
        else {
          var d = blend(px[p], bg, halo[j]);
          px[p] = a ? blend(d, c, a) : d;
        }
      }
    }
    return inView;
  }
  var labels = new Map();
  function sprite(text, size, weight, ink) {
    var key = size + " " + weight + " " + ink + text, made = labels.get(key);
    if (made) return made;
    if (labels.size > 600) labels.clear();
    var c = document.createElement("canvas"), g = c.getContext("2d"), font = weight + " " + size * dpr + "px " + theme.font;
    var cut = text.length > 42 ? text.slice(0, 40).trimEnd() + "\\u2026" : text;
    g.font = font;
    c.width = Math.ceil(g.measureText(cut).width + 8 * dpr); c.height = Math.ceil(size * 1.5 * dpr);
    g.font = font; g.textBaseline = "middle"; g.textAlign = "center"; g.lineJoin = "round";
    g.strokeStyle = css(theme.bg); g.lineWidth = 4 * dpr; g.globalAlpha = 0.9;
    g.strokeText(cut, c.width / 2, c.height / 2);
    g.globalAlpha = 1; g.fillStyle = css(ink ? theme.ink : theme.muted);
    g.fillText(cut, c.width / 2, c.height / 2);
    labels.set(key, c);
    return c;
  }
  var SIZE = [16, 13.5, 12.5, 12];
  function names(inView) {
    var zoom = view.s / fit, hi = Math.min(1 + Math.floor(Math.log2(Math.max(zoom, 1)) / 1.1), data.levels);
    var lo = Math.max(0, Math.min(hi - 2, data.levels - 1));
    var taken = [], count = 0, r = radius();
    function put(text, x, y, size, weight, ink, lift, often) {
      var c = sprite(text, size, weight, ink), w = c.width / dpr, h = c.height / dpr, left = x - w / 2, top = y - h / 2 - lift;
      if (left < 2 || top < 2 || left + w > cssW - 2 || top + h > cssH - 2) return;
      for (var k = 0; k < taken.length; k++) {
        var t = taken[k];
        if (left < t[0] + t[2] && t[0] < left + w && top < t[1] + t[3] && t[1] < top + h) return;
        if (!often && t[4] === text && Math.abs(t[5] - x) < 150 && Math.abs(t[6] - y) < 90) return;
      }
      taken.push([left, top, w, h, text, x, y]);
      ctx.drawImage(c, Math.round(left * dpr), Math.round(top * dpr));
      count++;
    }
    if (inView <= 90) {
      for (var i = 0; i < n && count < 60; i++) {
        if (!state[i] || label[i] < 0) continue;
        var x = sx(X[i]), y = sy(Y[i]);
        if (x > 0 && y > 0 && x < cssW && y < cssH) put(data.names[label[i]], x, y, 12, "450", true, r + 10, true);
      }
    }
    for (var k = 0; k < data.regions.length && count < 60; k++) {
      var g = data.regions[k];
      if (g[0] < lo || g[0] > hi) continue;
      var weight = g[0] === lo ? "650" : "500", ink = g[0] <= lo + 1 && !filtered;
      put(data.names[g[1]], sx(g[2]), sy(g[3]), SIZE[Math.min(g[0], 3)], weight, ink, inView < 1500 ? r + 9 : 0, false);
    }
  }
  function paint() {
    queued = false;
    var begin = performance.now(), r = Math.round(radius() * dpr * 4) / 4;
    if (disc.r !== r || disc.w !== BW) makeDisc(r);
    var bg = pack(theme.bg);
    px.fill(bg);
    if (filtered) discs(0, dim, bg);
    var inView = discs(1, full, bg);
    ctx.putImageData(buffer, -PAD, -PAD);
    names(inView);
    mark();
    times[drawn++ % times.length] = performance.now() - begin;
  }
  function redraw() { if (!queued) { queued = true; requestAnimationFrame(paint); } }

  // ------------------------------------------------------------------ finding the component under the pointer: a grid, sorted by cell
  var G = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n)))), start = new Uint32Array(G * G + 1), sorted = new Uint32Array(n);
  function cell(v) { return Math.max(0, Math.min(G - 1, Math.floor(v * G))); }
  (function () {
    var at = new Uint32Array(n), i;
    for (i = 0; i < n; i++) { at[i] = cell(Y[i]) * G + cell(X[i]); start[at[i] + 1]++; }
    for (i = 0; i < G * G; i++) start[i + 1] += start[i];
    var next = start.slice();
    for (i = 0; i < n; i++) sorted[next[at[i]]++] = i;
  })();
  function under(mx, my, reach) {
    var x = view.x + (mx - cssW / 2) / view.s, y = view.y - (my - cssH / 2) / view.s, d = reach / view.s, best = -1, least = d * d;
    for (var gy = cell(y - d); gy <= cell(y + d); gy++) for (var gx = cell(x - d); gx <= cell(x + d); gx++) {
      for (var k = start[gy * G + gx]; k < start[gy * G + gx + 1]; k++) {
        var i = sorted[k], e = (X[i] - x) * (X[i] - x) + (Y[i] - y) * (Y[i] - y);
        if (state[i] && e < least) { least = e; best = i; }
      }
    }
    return best;
  }

  // ------------------------------------------------------------------ card
  var sheets = [];
  function sheet(k, then) {
    if (!sheets[k]) {
      sheets[k] = new Image();
      sheets[k].src = data.pictures.sheets[k];
    }
    if (sheets[k].complete && sheets[k].naturalWidth) then(sheets[k]);
    else sheets[k].addEventListener("load", function () { then(sheets[k]); }, { once: true });
  }
  function strip(i) {
    var p = data.pictures, each = p.each, ids = [], c = document.createElement("canvas"), gap = 4;
    for (var j = 0; j < each; j++) if (examples[i * each + j] >= 0) ids.push(examples[i * each + j]);
    if (!ids.length) return null;
    if (cssW < 520) ids = ids.slice(0, 6);
    var columns = Math.min(each, cssW < 520 ? 6 : 4), rows = Math.ceil(ids.length / columns), g = c.getContext("2d");
    c.width = columns * (p.side + gap) - gap; c.height = rows * (p.side + gap) - gap;
    c.setAttribute("role", "img");
    c.setAttribute("aria-label", ids.length + " example pictures");
    ids.forEach(function (id, j) {
      var per = p.columns * p.rows, at = id % per, x = j % columns * (p.side + gap), y = Math.floor(j / columns) * (p.side + gap);
      sheet(Math.floor(id / per), function (image) {
        g.drawImage(image, at % p.columns * p.side, Math.floor(at / p.columns) * p.side, p.side, p.side, x, y, p.side, p.side);
      });
    });
    return c;
  }
  var showing = -1;
  function fill(i) {
    if (showing === i) return;
    showing = i;
    var close = card.querySelector("button"), h = document.createElement("h2"), p = document.createElement("p");
    var dl = document.createElement("dl");
    card.textContent = "";
    h.textContent = label[i] < 0 ? "unlabelled" : data.names[label[i]];
    if (label[i] < 0) h.className = "none";
    p.textContent = data.layers[layer[i]] + ", component " + comp[i];
    card.append(close, h, p);
    var pictures = examples ? strip(i) : null;
    if (pictures) card.append(pictures);
    var rows = data.colourings.filter(function (c) { return !c.kinds && (c.kind !== "class" || c === colouring); });
    var best = data.colourings.filter(function (c) { return c.kind === "class" && c !== colouring && c.q[i] !== 65535 && c.q[i] > 0; });
    best.sort(function (a, b) { return value(b, i) - value(a, i); });
    rows.concat(best.slice(0, 3)).forEach(function (c) {
      var dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = c.name;
      dd.textContent = c.q[i] === 65535 ? "\\u2013" : number(value(c, i));
      dl.append(dt, dd);
    });
    card.append(dl);
  }
  function value(c, i) { return c.min + c.q[i] * (c.max - c.min) / 65534; }
  function mark() {
    var i = kept >= 0 ? kept : hover;
    if (i < 0) { card.hidden = ring.hidden = true; return; }
    var x = sx(X[i]), y = sy(Y[i]), r = radius() + 4;
    ring.hidden = card.hidden = false;
    ring.style.width = ring.style.height = 2 * r + "px";
    ring.style.transform = "translate(" + (x - r) + "px," + (y - r) + "px)";
    card.classList.toggle("kept", kept >= 0);
    fill(i);
    var w = card.offsetWidth, h = card.offsetHeight;
    card.style.left = Math.max(8, x + r + 10 + w < cssW ? x + r + 10 : x - r - 10 - w) + "px";
    card.style.top = Math.max(8, Math.min(cssH - h - 8, y - h / 2)) + "px";
  }
  function keep(i) { kept = i; hover = -1; mark(); }

  // ------------------------------------------------------------------ search
  function filter(list) {
    var parts = words.value.toLowerCase().split(/\\s+/).filter(Boolean), hit = new Uint8Array(data.names.length), i;
    for (i = 0; i < low.length; i++) hit[i] = parts.every(function (part) { return low[i].indexOf(part) >= 0; }) ? 1 : 0;
    var whole_ = words.value.trim().toLowerCase();
    matches = [];
    for (i = 0; i < n; i++) {
      var yes = !parts.length || (label[i] >= 0 && hit[label[i]]) || layerLow[layer[i]] + ":" + comp[i] === whole_;
      if (yes && only >= 0) yes = colouring.q[i] === only;
      state[i] = yes ? 1 : 0;
      if (yes) matches.push(i);
    }
    filtered = matches.length < n;
    shown.textContent = filtered ? grouped(matches.length) + " of " + grouped(n) : grouped(n) + " components";
    found.textContent = "";
    found.hidden = !parts.length;
    if (parts.length && list !== false) results();
    else if (!parts.length) found.hidden = true;
    if (kept >= 0 && !state[kept]) keep(-1);
    redraw();
  }
  function results() {
    matches.slice(0, 40).forEach(function (i) {
      var li = document.createElement("li"), b = document.createElement("button"), small = document.createElement("small");
      b.type = "button";
      small.textContent = data.layers[layer[i]] + ", component " + comp[i];
      b.append(label[i] < 0 ? "unlabelled" : data.names[label[i]], small);
      b.addEventListener("click", function () { keep(i); fly({ x: X[i], y: Y[i], s: Math.max(view.s, fit * 4) }); });
      li.append(b);
      found.append(li);
    });
    if (matches.length !== 0 && matches.length <= 40) return;
    var li = document.createElement("li");
    li.textContent = matches.length ? "and " + (matches.length - 40) + " more" : "no label has these words";
    li.style.padding = ".25rem .45rem";
    found.append(li);
  }
  function toMatches() {
    if (!matches.length) return;
    var a = Infinity, b = Infinity, c = -Infinity, d = -Infinity;
    matches.forEach(function (i) { a = Math.min(a, X[i]); b = Math.min(b, Y[i]); c = Math.max(c, X[i]); d = Math.max(d, Y[i]); });
    fly({ x: (a + c) / 2, y: (b + d) / 2, s: Math.min(fit * 12, 0.8 * cssW / Math.max(c - a, 1e-6), 0.8 * cssH / Math.max(d - b, 1e-6)) });
  }

  // ------------------------------------------------------------------ hands: mouse, touch, pen, keys
  var pointers = new Map(), moved = 0;
  function at(e) { var box = canvas.getBoundingClientRect(); return { x: e.clientX - box.left, y: e.clientY - box.top }; }
  canvas.addEventListener("pointerdown", function (e) {
    cancelAnimationFrame(flight);
    canvas.setPointerCapture(e.pointerId);
    pointers.set(e.pointerId, at(e));
    if (pointers.size === 1) moved = 0;
    hover = -1;
  });
  canvas.addEventListener("pointermove", function (e) {
    var p = at(e), before = pointers.get(e.pointerId);
    if (!before) {
      if (e.pointerType === "touch" || kept >= 0) return;
      var i = under(p.x, p.y, 12);
      if (i !== hover) { hover = i; mark(); }
      return;
    }
    if (pointers.size === 1) {
      moved += Math.abs(p.x - before.x) + Math.abs(p.y - before.y);
      pointers.set(e.pointerId, p);
      panBy(p.x - before.x, p.y - before.y);
      return;
    }
    var other = null;
    pointers.forEach(function (q, id) { if (id !== e.pointerId) other = q; });
    var was = Math.hypot(before.x - other.x, before.y - other.y), is = Math.hypot(p.x - other.x, p.y - other.y);
    moved = 99;
    pointers.set(e.pointerId, p);
    panBy((p.x - before.x) / 2, (p.y - before.y) / 2);
    if (was > 8 && is > 8) zoomAt(is / was, (p.x + other.x) / 2, (p.y + other.y) / 2);
  });
  function up(e) {
    var p = at(e), known = pointers.delete(e.pointerId);
    if (known && !pointers.size && moved < 6 && e.type === "pointerup") keep(under(p.x, p.y, e.pointerType === "touch" ? 24 : 12));
  }
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", function () { if (hover >= 0) { hover = -1; mark(); } });
  canvas.addEventListener("wheel", function (e) {
    e.preventDefault();
    var p = at(e), unit = e.deltaMode === 1 ? 20 : e.deltaMode === 2 ? 400 : 1;
    zoomAt(Math.pow(2, -Math.max(-240, Math.min(240, e.deltaY * unit)) / 240), p.x, p.y);
  }, { passive: false });
  canvas.addEventListener("dblclick", function (e) { var p = at(e); zoomAt(2, p.x, p.y); });
  canvas.addEventListener("keydown", function (e) {
    var step = Math.min(cssW, cssH) * 0.15, did = true;
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === "ArrowLeft") panBy(step, 0);
    else if (e.key === "ArrowRight") panBy(-step, 0);
    else if (e.key === "ArrowUp") panBy(0, step);
    else if (e.key === "ArrowDown") panBy(0, -step);
    else if (e.key === "+" || e.key === "=") zoomAt(1.5, cssW / 2, cssH / 2);
    else if (e.key === "-") zoomAt(1 / 1.5, cssW / 2, cssH / 2);
    else if (e.key === "0") fly(whole());
    else if (e.key === "Enter") keep(under(cssW / 2, cssH / 2, Math.max(cssW, cssH) / 4));
    else if (e.key === "Escape") keep(-1);
    else did = false;
    if (did) e.preventDefault();
  });
  document.addEventListener("keydown", function (e) {
    if (e.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) { e.preventDefault(); words.focus(); }
    else if (e.key === "Escape") keep(-1);
  });
  words.addEventListener("input", filter);
  words.addEventListener("keydown", function (e) { if (e.key === "Enter") toMatches(); });
  choice.addEventListener("change", function () {
    colouring = data.colourings[choice.value];
    only = -1; showing = -1;
    colour(); filter(false); mark();
  });
  card.querySelector("button").addEventListener("click", function () { keep(-1); canvas.focus(); });
  el("in").addEventListener("click", function () { zoomAt(1.6, cssW / 2, cssH / 2); });
  el("out").addEventListener("click", function () { zoomAt(1 / 1.6, cssW / 2, cssH / 2); });
  el("all").addEventListener("click", function () { keep(-1); fly(whole()); });
  function dress() { theme.font = getComputedStyle(document.body).fontFamily; }
  function restyle() { readTheme(); dress(); colour(); redraw(); }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);

  readTheme(); dress(); colour();
  window.semanticMap = {  // for tests and measurements
    times: times, drawn: function () { return drawn; }, zoom: function () { return view.s / fit; },
    place: function (i) { var box = canvas.getBoundingClientRect(); return [box.left + sx(X[i]), box.top + sy(Y[i])]; }
  };
  document.querySelector(".tools").hidden = false;
  resize(); filter(false);
  new ResizeObserver(resize).observe(stage);
})();
"""
