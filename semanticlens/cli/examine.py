"""``semanticlens audit`` and ``semanticlens repair``: what a network uses, and taking out what it should not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticlens._errors import DataError
from semanticlens.cli import commands as common

if TYPE_CHECKING:
    from semanticlens.nn.network import Network

__all__ = ["audit", "repair"]


def _network(options: argparse.Namespace) -> Network:
    from semanticlens.nn.load import load

    net: Network = load(options.model, arch=options.arch)
    return net


def _pairs(options: argparse.Namespace) -> tuple[Any, Any] | None:
    """Two folders with the same files in the same order."""
    if options.pairs is None:
        return None
    without, with_it = (common.images_at(Path(name), "none") for name in options.pairs)
    if len(without) != len(with_it):
        raise DataError(
            f"--pairs: {options.pairs[0]} has {len(without)} pictures and {options.pairs[1]} {len(with_it)}: each picture needs its partner"
        )
    return without, with_it


def audit(options: argparse.Namespace) -> None:
    """Components sorted by what they may and must not show, beside what they do."""
    from semanticlens.lens.audit import audit as run

    page = None if options.out is None else common.target_at(options.out, (".html", ".htm"), "--out")
    record = None if options.save is None else common.target_at(options.save, (".json",), "--save")
    db = common.open_database(options, texts=True)
    db.attach(network=_network(options), images=common.images_at(Path(options.images), options.labels))
    classes = [int(name) if name.isdigit() else name for name in options.classes]
    found = run(
        db,
        classes=classes,
        valid=options.valid,
        spurious=options.spurious,
        threshold=options.threshold,
        layers=options.layers,
        templates=options.templates,
        null="score" if options.null == "auto" else options.null,
        measure=options.measure,
        pairs=_pairs(options),
        progress=common.show_progress(options),
    )
    if options.decisions is not None:
        common.note(f"{found.load_decisions(options.decisions)} decisions taken over from {options.decisions}")
    if found.threshold is None and (page is not None or record is not None):
        raise ValueError(
            "--out and --save need --threshold: without one the audit has no categories; its curve is printed without them"
        )
    if record is not None:
        found.save(record)
    if page is not None:
        found.report(page)
    if found.threshold is not None:
        common.show(found.to_dict(), repr(found), options)
        return
    curves = {layer: found.curve(layer) for layer in found.layers}
    rows: list[list[object]] = [
        [layer, name, float(t), *(float(curve[word][i][j]) for word in ("valid", "spurious", "unexpected"))]
        for layer, curve in curves.items()
        for i, name in enumerate(found.class_names)
        for j, t in enumerate(curve["threshold"])
    ]
    heads = ["layer", "class", "threshold", "valid", "spurious", "unexpected"]
    plain = {layer: {key: value.tolist() for key, value in curve.items()} for layer, curve in curves.items()}
    common.show({**found.to_dict(), "curves": plain}, common.table(heads, rows), options)


def repair(options: argparse.Namespace) -> None:
    """A network without some of its components, saved, with answers before and after."""
    from semanticlens.lens.repair import repair as run

    out = common.target_at(options.out, (".safetensors",), "--out")
    page = None if options.report is None else common.target_at(options.report, (".html", ".htm"), "--report")
    if out.exists() and not options.force:
        raise FileExistsError(f"{out} exists: pass --force to replace it, or another --out")
    net = _network(options)
    groups = {name: common.images_at(Path(folder), "folders") for name, folder in map(_named, options.group or ())}
    for name, images in groups.items():
        groups[name] = (images, _targets(net, images, name))
    images = None if options.images is None else common.images_at(Path(options.images), "none")
    bar = common.show_progress(options)
    fix = run(
        net,
        [_component(text) for text in options.components],
        how=options.how,
        images=images,
        pairs=_pairs(options),
        progress=bar,
    )
    proof = fix.before_after(groups, progress=bar) if groups else None
    fix.network.save(out)
    if page is not None:
        target = int(options.target) if options.target is not None and options.target.isdigit() else options.target
        fix.report(page, before_after=proof, target=target if proof is not None else None)
    result = {**fix.to_dict(), "out": str(out), "before_after": None if proof is None else proof.to_dict()}
    text = (
        f"{fix!r}\n" + (f"\n{proof!r}\n" if proof is not None else "") + f"\n{out}: {out.stat().st_size / 1e6:.1f} MB"
    )
    common.show(result, text, options)


def _component(text: str) -> tuple[str, int]:
    layer, colon, number = text.rpartition(":")
    if not colon or not layer or not number.isdigit():
        raise ValueError(f"{text!r} is no component: write LAYER:NUMBER, for example features.28:17")
    return layer, int(number)


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise ValueError(f"--group {text!r}: write NAME=FOLDER, for example clean=photos/")
    return name, folder


def _targets(net: Network, images: Any, group: str) -> Any:
    """The network's classes of pictures whose folders are named after them, or numbered."""
    import numpy as np

    names = images.class_names or ()
    known = {} if net.labels is None else {label: i for i, label in enumerate(net.labels)}
    missing = [name for name in names if name not in known and not name.isdigit()]
    if missing or not names:
        raise DataError(
            f"--group {group}: folder {missing[0] if missing else '(none)'!r} is no class of the network; name each folder after a class, "
            "or by its number"
        )
    places = np.array([known.get(name, int(name) if name.isdigit() else -1) for name in names])
    return np.where(images.labels >= 0, places[images.labels], -1)
