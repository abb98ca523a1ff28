"""What the sub-commands of ``semanticlens`` do: each function takes parsed options and prints its result.

Their arguments are declared in :mod:`semanticlens.cli`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticlens._errors import DataError, LayerNotFoundError, ModelFileError
from semanticlens.cli.npz import read_npz

if TYPE_CHECKING:
    from semanticlens.encoders import Encoder
    from semanticlens.lens.database import ConceptDB

__all__ = ["align", "build", "card", "demo", "info", "label", "map", "printable", "report", "scores", "search", "state_files"]


def printable(text: str) -> str:
    """``text`` without control characters, which names from files could otherwise use to steer the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )


def _say(text: str) -> None:
    print(printable(text))


def note(text: str) -> None:
    print(printable(f"semanticlens: {text}"), file=sys.stderr)


def show(result: dict[str, Any], text: str, options: argparse.Namespace) -> None:
    """A result as JSON or as text."""
    if options.json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        _say(text)


def show_progress(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr.isatty()


# ---------------------------------------------------------------------- inputs


def _arrays(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The named arrays of a .npz file, those that are there."""
    return read_npz(path, wanted, remedy="write it with numpy.savez; texts as an array of strings, not of objects")


def _texts(path: Path, arrays: dict[str, Any]) -> tuple[list[str], Any] | None:
    if "texts" not in arrays and "names" not in arrays:
        return None
    if "texts" not in arrays or "names" not in arrays:
        raise DataError(f"{path} has only one of texts and names: texts is the matrix (L, d), names the L texts")
    try:
        names = [str(name) for name in arrays["names"].reshape(-1)]
    except (ValueError, SystemError) as error:  # NumPy raises the latter for characters that do not exist
        raise DataError(f"{path}: names holds what is no text ({error}): write it as an array of strings") from None
    return names, arrays["texts"]


def encoder_at(name: str, db: ConceptDB | None = None) -> Encoder:
    """The encoder that an argument means; with a database, text vectors alone will do."""
    from semanticlens import encoders

    path = Path(name)
    if path.suffix != ".npz":
        if path.exists() or path.suffix:
            raise DataError(f"--encoder {name}: pass demo, or a .npz file with images, texts and names")
        return encoders.load(name)
    arrays = _arrays(path, ("images", "texts", "names"))
    texts, fingerprint = _texts(path, arrays), None
    if "images" not in arrays and texts is None:
        raise DataError(f"{path} has neither images (N, d) nor texts (L, d) with names")
    if "images" not in arrays and db is not None:
        own = db.record["encoder"]
        fingerprint = own["fingerprint"]
        note(f"{path} has no image vectors to compare; its texts are taken to be of the database's encoder {own['name']!r}")
    try:
        return encoders.Arrays(images=arrays.get("images"), texts=texts, name=path.stem, fingerprint=fingerprint)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def open_database(options: argparse.Namespace, *, texts: bool) -> ConceptDB:
    """The database, with the encoder that was given; ``texts``: it must be able to encode texts."""
    from semanticlens import encoders
    from semanticlens.lens.database import ConceptDB

    path = Path(options.db)
    if not path.is_file():
        raise FileNotFoundError(f"there is no database {path}: make one with semanticlens build")
    db = ConceptDB.load(path)
    if getattr(options, "encoder", None) is not None:
        db.attach(encoder_at(options.encoder, db))
    if texts and db.encoder is None:
        name = db.record["encoder"]["name"]
        if name in encoders.BUILT_IN:
            raise DataError(f"{path} was made with the built-in encoder {name!r} of another version of this package: build it again")
        raise DataError(
            f"{path} was made with encoder {name!r}, which is needed for texts: pass its vectors with --encoder FILE.npz"
        )
    return db


def words_at(path: Path) -> Any:
    """A vocabulary: lines of a text file, or names with their vectors."""
    if path.suffix == ".npz":
        found = _texts(path, _arrays(path, ("texts", "names")))
        if found is None:
            raise DataError(f"{path} has no vocabulary: it needs texts (L, d) and names (L)")
        return found
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): a vocabulary has one text per line"
        ) from None
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise DataError(f"{path} has no words: a vocabulary has one text per line")
    return words


def _labels(db: ConceptDB, options: argparse.Namespace, words: Any, top: int = 5) -> Any:
    return db.label(
        words, top=top, threshold=options.threshold, layers=options.layers, templates=options.templates, null=options.null
    )


def target_at(name: str, allowed: Sequence[str], what: str) -> Path:
    """The file to write; what would fail after the work fails before it."""
    path = Path(name)
    if path.suffix.lower() not in allowed:
        raise ValueError(f"{what} {path}: the name must end in {' or '.join(allowed)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    return path


# ---------------------------------------------------------------------- commands


def info(options: argparse.Namespace) -> None:
    """Layers of a network, or the origin of a database."""
    path = Path(options.file)
    if path.suffix == ".sldb":
        from semanticlens.lens.database import ConceptDB

        if not path.is_file():
            raise FileNotFoundError(f"there is no database {path}")
        db = ConceptDB.load(path)
        layers = [
            {"name": name, "components": len(db[name]), "dead": int(db[name].dead.sum()), "examples": db[name].ids.shape[1]}
            for name in db.layers
        ]
        show(
            {"kind": "concept database", "pictures": len(db.sample_ids), "layers": layers, "record": db.record}, repr(db), options
        )
        return
    from semanticlens.nn.load import load

    net = load(path, arch=options.arch)
    rows = [
        {"name": row.name, "op": row.op, "shape": list(row.shape), "n_params": row.n_params, "aliases": list(row.aliases)}
        for row in net.layers
    ]
    result = {
        "kind": "network", "name": net.name, "fingerprint": net.fingerprint,
        "input_shape": None if net.input_shape is None else list(net.input_shape),
        "output_shape": list(net.output_shape), "n_params": net.n_params, "classes": None if net.labels is None else len(net.labels),
        "preprocess": None if net.preprocess is None else net.preprocess.to_dict(), "layers": rows,
    }  # fmt: skip
    preprocess = net.preprocess if net.preprocess is not None else "none in the file"
    text = f"{net!r}\nfingerprint {net.fingerprint}\npreprocess  {preprocess}\n\n{net.layers!r}"
    show(result, text, options)


def images_at(path: Path, labels: str) -> Any:
    from semanticlens import data

    if path.is_dir():
        return data.ImageFolder(path, labels=labels)  # type: ignore[arg-type]
    if path.suffix.lower() == ".zip":
        return data.ImageArchive(path, labels=labels)  # type: ignore[arg-type]
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or zip file {path}")
    raise DataError(f"{path} is neither a folder nor a .zip file of pictures")


def state_files(options: argparse.Namespace) -> list[Path]:
    """Where a build keeps what it has done so far: of the pass over the pictures, and of the encoding."""
    prefix = options.checkpoint if options.checkpoint is not None else options.out
    return [Path(f"{prefix}.{stage}.part") for stage in ("collect", "embed")]


def build(options: argparse.Namespace) -> None:
    """Collect, encode, save; resumable."""
    from semanticlens.lens.collect import collect
    from semanticlens.lens.database import ConceptDB
    from semanticlens.nn.load import load

    out, start = Path(options.out), time.perf_counter()
    _check_out(out, options.force)
    parts = state_files(options)
    if options.restart:
        for part in parts:
            part.unlink(missing_ok=True)
    net = load(options.model, arch=options.arch)
    for layer in options.layers:
        net.resolve(layer)  # before any work; offers the nearest names
    images = images_at(Path(options.images), options.labels)
    encoder = encoder_at(options.encoder)
    rows = getattr(encoder, "n_images", len(images))
    if rows != len(images):
        raise DataError(
            f"{options.encoder} has vectors for {rows or 0} pictures, but {options.images} has {len(images)}: "
            "row i must belong to picture i"
        )
    if parts[0].exists():
        note(f"continuing the build kept in {parts[0]}")
    bar = show_progress(options)
    examples = collect(
        net, images, options.layers, top=options.top, pool=options.pool, batch_size=options.batch_size, on_error=options.on_error,
        checkpoint=parts[0], checkpoint_every=10.0, progress=bar,
    )  # fmt: skip
    for entry in examples.skipped:
        note(f"skipped {entry}")
    db = ConceptDB.build(examples, images, encoder, thumbnails=options.thumbnails, checkpoint=parts[1], progress=bar)
    db.save(out)
    for part in parts:
        part.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    layers = {name: {"components": len(db[name]), "dead": int(db[name].dead.sum())} for name in db.layers}
    result = {
        "out": str(out),
        "bytes": out.stat().st_size,
        "pictures": len(images),
        "skipped": len(examples.skipped),
        "layers": layers,
        "seconds": seconds,
    }
    show(result, f"{db!r}\n\n{out}: {out.stat().st_size / 1e6:.1f} MB, {len(images)} pictures, {seconds:.1f} s", options)


def _check_out(out: Path, force: bool) -> None:
    """Refuse before hours of work what would fail, or do harm, after them."""
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name the file to write, for example {out / 'concepts.sldb'}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: the folder {out.parent} does not exist")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists: pass --force to replace it, or another --out")
    if out.suffix in (".safetensors", ".npz", ".pth", ".pt"):
        raise ValueError(
            f"--out {out}: that ending is a network's or an array file's; name the database for example {out.with_suffix('.sldb')}"
        )


def search(options: argparse.Namespace) -> None:
    """Ranked components."""
    db = open_database(options, texts=True)
    found = db.search(
        options.queries,
        top=options.top,
        layers=options.layers,
        templates=options.templates,
        null=options.null,
        threshold=options.threshold,
    )
    rows = [
        [hit.query, hit.rank, hit.layer, hit.component, hit.score, ", ".join(name for name, _ in hit.classes[:3])]
        for hit in found
    ]
    if rows and not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    heads = ["query", "rank", "layer", "component", "score", "classes"][: len(rows[0]) if rows else 6]
    show(found.to_dict(), table(heads, rows) if rows else "no component scores above the threshold", options)


def label(options: argparse.Namespace) -> None:
    """Names of components."""
    out = None if options.out is None else target_at(options.out, (".json",), "--out")
    words = words_at(Path(options.vocabulary))
    db = open_database(options, texts=isinstance(words, list))
    found = _labels(db, options, words, options.top)
    if out is not None:
        found.save(out)
    rows: list[list[object]] = []
    for name in found:
        for k in range(len(found[name])):
            own = found[name, k]
            then = ", ".join(f"{text} {score:.2f}" for text, score in own.candidates[0 if own.unlabelled else 1 : 4])
            rows.append([name, k, "dead" if db[name].dead[k] else str(own), own.score, then])
    show(found.to_dict(), table(["layer", "component", "label", "score", "then"], rows), options)


def scores(options: argparse.Namespace) -> None:
    """Scores of components."""
    found = open_database(options, texts=False).scores(layers=options.layers)
    show(found.to_dict(), repr(found), options)


def report(options: argparse.Namespace) -> None:
    """The page."""
    out = target_at(options.out, (".html", ".htm"), "report")
    words = None if options.vocabulary is None else words_at(Path(options.vocabulary))
    db = open_database(options, texts=options.queries is not None or isinstance(words, list))
    found = None
    if options.queries is not None:
        found = db.search(options.queries, top=8, layers=options.layers, templates=options.templates, null=options.null)
    labels = None if words is None else _labels(db, options, words)
    path = db.report(
        out, queries=found, labels=labels, title=options.title, max_components=options.max_components, n_examples=options.examples
    )
    _say(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def card(options: argparse.Namespace) -> None:
    """The picture of a component."""
    from semanticlens.plot.card import FORMATS

    out = target_at(options.out, tuple(FORMATS), "card")
    words = None if options.vocabulary is None else words_at(Path(options.vocabulary))
    db = open_database(options, texts=isinstance(words, list))
    if options.layer not in db.layers:
        raise LayerNotFoundError(options.layer, db.layers, "the database")
    options.layers = [options.layer]
    labels = None if words is None else _labels(db, options, words)
    drawn = db.card(options.layer, options.component, labels=labels, n_examples=options.examples, font=options.font)
    _say(f"{drawn.save(out)}: {drawn.image.width} x {drawn.image.height} pixels")


def map(options: argparse.Namespace) -> None:
    """Components in the plane."""
    from semanticlens.lens.map import map as lay_out

    out = target_at(options.out, (".html", ".htm", ".png", ".jpg", ".jpeg", ".webp", ".svg"), "--out")
    words = None if options.vocabulary is None else words_at(Path(options.vocabulary))
    db = open_database(options, texts=isinstance(words, list))
    labels = None if words is None else _labels(db, options, words)
    found = lay_out(db, options.layers, labels, options.method, options.color, seed=options.seed, progress=show_progress(options))
    if out.suffix.lower() in (".html", ".htm"):
        found.to_html(out, pictures=options.examples, name=options.title)
    else:
        found.save(out)
    note(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    show(found.to_dict(), repr(found), options)


def align(options: argparse.Namespace) -> None:
    """Two networks compared."""
    from semanticlens.cli.align import compared, summary

    out = None if options.out is None else target_at(options.out, (".html", ".htm"), "--out")
    images = None if options.images is None else images_at(Path(options.images), options.labels)
    found = compared(options, images, show_progress(options))
    if out is not None:
        found.report(out, title=options.title)
        note(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    show(found.to_dict(), summary(found), options)


def demo(options: argparse.Namespace) -> int:
    """The whole way on generated pictures."""
    try:
        from semanticlens.demo import run
    except ImportError as error:
        raise ModelFileError(f"the demo is not part of this installation ({error})") from None
    out = target_at(options.out, (".html", ".htm"), "--out")
    size = {} if options.pictures is None else {"n_pictures": options.pictures}
    return int(
        run(out, seed=options.seed, n_threads=options.threads, progress=show_progress(options), json=options.json, **size).exit_code
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    from semanticlens.lens.results import text_table

    return text_table(headers, rows)
