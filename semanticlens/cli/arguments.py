"""Sub-commands and options of ``semanticlens``, with their help."""

from __future__ import annotations

import argparse
from typing import Any

from semanticlens._version import __version__

__all__ = ["PROG", "TRACEBACK", "parser"]

PROG = "semanticlens"
TRACEBACK = "SEMANTICLENS_DEBUG_TRACEBACK"            # environment variable: 1 shows where an error arose


def _threads(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a thread count: 1 or more, or -1 for all processors, -2 for all but one"
        )
    return value


def _positive(text: str) -> int:
    return _whole(text, 1)


def _count(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return value


_Commands = Any  # argparse's own type is private


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog=PROG,
        description="See, search, label and audit what a trained network has learned.",
        epilog="The usual order: info, build, then search, label, scores, report, card.  semanticlens COMMAND --help explains each.",
    )
    whole.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    whole.set_defaults(command=None, threads=None, traceback=False)
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    looking = (_add_info, _add_build, _add_search, _add_label, _add_scores, _add_report, _add_card, _add_map)
    for add in (*looking, _add_audit, _add_repair, _add_compare, _add_track, _add_align, _add_demo):
        add(commands)
    return whole


def _command(commands: _Commands, name: str, summary: str, text: str, examples: str, *, json: bool) -> argparse.ArgumentParser:
    """A sub-command with the options that all share."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog="examples:\n" + "\n".join(f"  {PROG} {name} {line}" for line in examples.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    shared = parser.add_argument_group("general")
    if json:
        shared.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else, on standard output")
    shared.add_argument("--threads", type=_threads, metavar="N", help="threads to use (default: all processors of this process)")
    shared.add_argument("--quiet", action="store_true", help="no progress bar")
    shared.add_argument("--traceback", action="store_true", help=f"on an error show where it arose (also: {TRACEBACK}=1)")
    return parser


def _add_query_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", metavar="FILE.npz", help="the encoder's vectors (see build); not needed for the built-in one"
    )
    parser.add_argument("--templates", nargs="+", metavar="TEXT", help='texts with {}, averaged, e.g. "a photo of a {}"')
    parser.add_argument(
        "--null", choices=("auto", "none", "vector", "score"), default="auto",
        help="correction by the empty text (default: auto, which is vector with templates and none without)",
    )  # fmt: skip
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="only these layers")


def _add_info(commands: _Commands) -> None:
    parser = _command(
        commands, "info", "what a model or database file holds",
        "Print the layers of a network, or what a concept database was made from.",
        "mobilenet_v2.safetensors\nresnet20.npz --json\nphotos.sldb", json=True,
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a network (.safetensors, .pth, .pt, .npz) or a concept database (.sldb)")
    parser.add_argument("--arch", metavar="NAME", help="architecture of bare weights, where the file does not tell")


def _add_build(commands: _Commands) -> None:
    parser = _command(
        commands, "build", "make a concept database from a network and pictures",
        "Run the network over the pictures, keep for every component those that activate it most, encode them, and write the database.\n\n"
        "An interrupted build continues when the same command is given again: its state lies beside OUT (OUT.collect.part,\n"
        "OUT.embed.part) and is removed at the end.  An OUT that exists is not replaced without --force.\n\n"
        "ENCODER is demo, or a .npz file with vectors computed elsewhere, CLIP's for example: images (one row per picture, in the sorted\n"
        "order of the folder), texts (one row per text) and names (the texts).",
        "mobilenet_v2.safetensors photos/ --layers features.18 --encoder clip.npz --out photos.sldb\n"
        "net.safetensors pictures.zip --layers conv4 conv5 --encoder demo --labels folders --top 30 --out pictures.sldb", json=True,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="the network: a bundle, or weights of a known architecture")
    parser.add_argument("images", metavar="IMAGES", help="a folder of pictures, or a zip file of them")
    parser.add_argument(
        "--layers", nargs="+", required=True, metavar="LAYER", help="layers to explain, as semanticlens info names them"
    )
    parser.add_argument("--encoder", required=True, metavar="ENCODER", help="demo, or FILE.npz with images, texts and names")
    parser.add_argument("--out", required=True, metavar="DB", help="the database to write, for example photos.sldb")
    parser.add_argument("--top", type=_positive, default=20, metavar="M", help="examples per component (default: %(default)s)")
    parser.add_argument(
        "--pool",
        default="auto",
        help="how a feature map becomes one number (default: %(default)s, the channel's maximum or mean)",
    )
    parser.add_argument(
        "--labels", choices=("none", "folders"), default="none", help="folders: the class of a picture is its first folder"
    )
    parser.add_argument(
        "--on-error", choices=("raise", "skip"), default="raise", help="skip: leave unreadable pictures out and list them"
    )
    parser.add_argument(
        "--batch-size", type=_positive, default=32, metavar="N", help="pictures per forward pass (default: %(default)s)"
    )
    parser.add_argument(
        "--thumbnails",
        type=_count,
        default=96,
        metavar="PX",
        help="longer side of the kept copies, 0 keeps none (default: %(default)s)",
    )
    parser.add_argument("--arch", metavar="NAME", help="architecture of bare weights, where the file does not tell")
    parser.add_argument(
        "--checkpoint", metavar="PREFIX", help="where to keep the state of an unfinished build (default: beside OUT)"
    )
    parser.add_argument("--restart", action="store_true", help="forget the state of an unfinished build")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _add_search(commands: _Commands) -> None:
    parser = _command(
        commands, "search", "components that answer to a text", "Rank the components of all layers by how well they answer to each text.",
        'photos.sldb striped "a red car"\nphotos.sldb dog --encoder clip.npz --templates "a photo of a {}" --top 5 --json', json=True,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("queries", nargs="+", metavar="QUERY")
    _add_query_options(parser)
    parser.add_argument("--top", type=_positive, default=10, metavar="N", help="hits per query (default: %(default)s)")
    parser.add_argument("--threshold", type=float, metavar="X", help="only scores above X")


def _add_vocabulary(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--vocabulary", required=required, metavar="FILE",
        help="one text per line; or a .npz with names and texts (their vectors), which needs no encoder",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, default=0.0, metavar="X", help="below X a component is unlabelled (default: %(default)s)"
    )


def _add_label(commands: _Commands) -> None:
    parser = _command(
        commands, "label", "name every component", "Name every component by the texts of a vocabulary that are closest to it.",
        "photos.sldb --vocabulary words.txt --threshold 0.2\n"
        "photos.sldb --vocabulary words.txt --encoder clip.npz --out labels.json", json=True,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    _add_vocabulary(parser, required=True)
    _add_query_options(parser)
    parser.add_argument("--top", type=_positive, default=5, metavar="N", help="candidates per component (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE.json", help="also write the labels to this file")


def _add_scores(commands: _Commands) -> None:
    parser = _command(
        commands, "scores", "clarity, polysemanticity and redundancy",
        "Print the means per layer; with --json the scores of every component.",
        "photos.sldb\nphotos.sldb --json > scores.json", json=True,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="only these layers")


def _add_report(commands: _Commands) -> None:
    parser = _command(
        commands, "report", "one self-contained HTML page",
        "Write the database as a page: overview, search results, every component with its examples.",
        'photos.sldb report.html --queries striped "a red car" --vocabulary words.txt', json=False,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("out", metavar="OUT.html", help="replaced if it exists")
    parser.add_argument("--queries", nargs="+", metavar="QUERY", help="texts to search for")
    _add_vocabulary(parser, required=False)
    _add_query_options(parser)
    parser.add_argument("--title", metavar="TEXT")
    parser.add_argument("--max-components", type=_count, default=2000, metavar="N", help="show at most N (default: %(default)s)")
    parser.add_argument("--examples", type=_count, default=12, metavar="N", help="pictures per component (default: %(default)s)")


def _add_card(commands: _Commands) -> None:
    parser = _command(
        commands, "card", "one component as a picture", "Draw a component: its examples, label, scores and classes.",
        "photos.sldb features.18 123 card.png --vocabulary words.txt", json=False,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("layer", metavar="LAYER")
    parser.add_argument("component", metavar="COMPONENT", type=_count)
    parser.add_argument("out", metavar="OUT.png", help=".png, .jpg or .webp; replaced if it exists")
    _add_vocabulary(parser, required=False)
    _add_query_options(parser)
    parser.add_argument("--examples", type=_count, default=12, metavar="N", help="pictures shown (default: %(default)s)")
    parser.add_argument("--font", metavar="FILE", help="a .ttf or .otf for scripts that no font here covers")


def _add_map(commands: _Commands) -> None:
    parser = _command(
        commands, "map", "components in the plane, as a picture or a page",
        "Lay components out by what their examples mean: near means alike.\n\n"
        "OUT.html is one page to zoom, pan and search in, with examples; .png, .jpg, .webp and .svg are pictures.",
        "photos.sldb --out map.html --vocabulary words.txt\nphotos.sldb --out map.svg --layers features.18 --color clarity", json=True,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("--out", required=True, metavar="FILE", help=".html, .png, .jpg, .webp or .svg; replaced if it exists")
    _add_vocabulary(parser, required=False)
    _add_query_options(parser)
    parser.add_argument("--method", choices=("neighbours", "umap", "pca"), default="neighbours",
                        help="umap needs umap-learn (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--color", default="layer", metavar="NAME",
        help="layer, clarity, polysemanticity, redundancy, or a class (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--examples", type=_count, default=8, metavar="N", help="pictures per component of the page (default: %(default)s)"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page")


def _add_audit(commands: _Commands) -> None:
    parser = _command(
        commands, "audit", "does the network use what it should?",
        "Sort the components of a database by prompts of what may be used and what must not be, with their share of a class's\n"
        "relevance and what taking them out does to the class.  Without --threshold the shares are printed over all thresholds: there is\n"
        "none that fits every encoder.  --pairs takes two folders of the same pictures, without and with what must not be used: what\n"
        "answers to it is named whatever it is called.",
        "photos.sldb net.safetensors photos/ --classes ox --valid horn fur --spurious water text --threshold 0.2 --out audit.html\n"
        "photos.sldb net.safetensors photos/ --classes ox --valid ox --spurious text --threshold 0.2 --pairs plain/ marked/", json=True,
    )  # fmt: skip
    parser.add_argument("db", metavar="DB")
    parser.add_argument("model", metavar="MODEL", help="the network that the database was made from")
    parser.add_argument("images", metavar="IMAGES", help="its pictures: a folder, or a zip file")
    parser.add_argument(
        "--labels", choices=("none", "folders"), default="folders", help="folders: the class of a picture is its first folder"
    )
    parser.add_argument("--classes", nargs="+", required=True, metavar="CLASS", help="by name or number")
    parser.add_argument("--valid", nargs="+", required=True, metavar="TEXT", help="what may be used for them")
    parser.add_argument("--spurious", nargs="+", required=True, metavar="TEXT", help="what must not be")
    parser.add_argument("--threshold", type=float, metavar="X", help="from which score a text describes a component")
    _add_query_options(parser)
    parser.add_argument(
        "--measure", type=_count, default=10, metavar="N", help="components per layer and class to take out (default: %(default)s)"
    )
    parser.add_argument("--pairs", nargs=2, metavar=("WITHOUT", "WITH"), help="the same pictures without and with what must not be used")
    parser.add_argument("--decisions", metavar="FILE.json", help="take over the decisions of a saved audit")
    parser.add_argument("--out", metavar="FILE.html", help="also write a page")
    parser.add_argument("--save", metavar="FILE.json", help="also write findings and decisions")
    parser.add_argument("--arch", metavar="NAME", help="architecture of bare weights, where the file does not tell")


def _add_repair(commands: _Commands) -> None:
    parser = _command(
        commands, "repair", "take components out of a network",
        "Write a network without some of its components, and compare the answers of both on groups of pictures (folders of classes).",
        "net.safetensors features.28:17 features.28:40 --out repaired.safetensors --group clean=photos/ --group marked=marked/\n"
        "net.safetensors features.28:17 --how mean --images photos/ --out repaired.safetensors --report repair.html", json=True,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("components", nargs="+", metavar="LAYER:NUMBER")
    parser.add_argument("--out", required=True, metavar="FILE.safetensors", help="the network to write")
    parser.add_argument(
        "--how", choices=("ablate", "mean", "project"), default="ablate",
        help="0 in their place, their mean over --images, or the direction between --pairs projected out (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--images", metavar="IMAGES", help="a folder or zip file of pictures, for the mean")
    parser.add_argument("--pairs", nargs=2, metavar=("WITHOUT", "WITH"), help="the same pictures without and with what should go")
    parser.add_argument("--group", action="append", metavar="NAME=FOLDER", help="pictures to answer before and after; folders are classes")
    parser.add_argument("--report", metavar="FILE.html", help="also write a page")
    parser.add_argument("--target", metavar="CLASS", help="the class that leaned on them, for the page")
    parser.add_argument("--arch", metavar="NAME", help="architecture of bare weights, where the file does not tell")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _add_matching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threshold", type=float, metavar="X", help="cosine from which two components show the same")
    parser.add_argument(
        "--chance", type=float, metavar="SHARE", help="take the threshold that at most this share of random components reaches, e.g. 0.05"
    )
    parser.add_argument("--random", type=_count, metavar="N", help="random components to compare with (with --chance 2000, else none)")
    parser.add_argument("--centre", action="store_true", help="compare the vectors less their mean")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call them (default: by their networks)")
    parser.add_argument("--min-examples", type=_positive, default=1, metavar="N", help="leave out components with fewer (default: 1)")
    parser.add_argument("--resamples", type=_count, default=1000, metavar="N", help="of the intervals, 0 for none (default: %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="of intervals and random components (default: %(default)s)")
    parser.add_argument("--encoder", metavar="FILE.npz", help="the encoder's vectors (see build), for a vocabulary of texts")
    parser.add_argument("--vocabulary", metavar="FILE", help="name the components: one text per line, or a .npz with names and texts")
    parser.add_argument("--label-threshold", type=float, default=0.0, metavar="X", help="below X one is unlabelled (default: %(default)s)")


def _add_compare(commands: _Commands) -> None:
    parser = _command(
        commands, "compare", "which concepts two databases share",
        "Compare the components of two databases that were made with one encoder: similarity both ways with intervals, concepts that\n"
        "both have, and concepts of one only.  Without --threshold or --chance there is only the similarity, and with --json the curve\n"
        "over all thresholds: there is none that fits every encoder.",
        "a.sldb b.sldb --chance 0.05 --centre --out both.html\n"
        "a.sldb b.sldb --layers-a layer4 --layers-b features.18 --threshold 0.8 --json", json=True,
    )  # fmt: skip
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--layers-a", nargs="+", metavar="LAYER", help="of A (default: all)")
    parser.add_argument("--layers-b", nargs="+", metavar="LAYER", help="of B (default: all)")
    _add_matching(parser)
    parser.add_argument("--out", metavar="FILE.html", help="also write a page with pairs side by side; replaced if it exists")


def _add_track(commands: _Commands) -> None:
    parser = _command(
        commands, "track", "what becomes of concepts from database to database",
        "Follow the components over databases in a row, made with one encoder: how many continue, merge, die, split off and appear in\n"
        "each step, how far they move, and how alike each database is to the last.",
        "epoch1.sldb epoch5.sldb epoch30.sldb --layers layer4 --chance 0.05 --plot track.png\n"
        "r20.sldb r32.sldb r56.sldb --layers layer3.2 layer3.4 layer3.8 --threshold 0.7 --json", json=True,
    )  # fmt: skip
    parser.add_argument("databases", nargs="+", metavar="DB", help="two or more, in order")
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="one for all databases, or one for each (default: all layers)")
    _add_matching(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="also draw it: .png, .jpg or .webp; replaced if it exists")


def _add_align(commands: _Commands) -> None:
    parser = _command(
        commands, "align", "which concepts two networks share",
        "Compare the concepts of two networks, layer by layer and concept by concept, over the same samples.\n\n"
        "A and B are .npz files with one matrix (samples, concepts) of proximities per layer: at least 0, row sums at most 1.  With\n"
        "--features the matrices are feature vectors (samples, features) and concepts are found first; feature files\n"
        "(.safetensors) say so themselves.  sample_ids, whole numbers, one per row, lets a wrong order of rows be seen.",
        "a.npz b.npz\na.npz b.npz --json > result.json\nresnet20.safetensors resnet56.safetensors --images photos/ --out "
        "alignment.html", json=True,
    )  # fmt: skip
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--out", metavar="FILE.html", help="also write a report; replaced if it exists")
    parser.add_argument("--images", metavar="IMAGES", help="a folder or zip file of the pictures that sample_ids count, for the report")
    parser.add_argument("--labels", choices=("none", "folders"), default="none", help="folders: the class of a picture is its first folder")
    parser.add_argument("--features", action="store_true", help="the matrices are features: find concepts (NLMCD) first")
    parser.add_argument(
        "--min-cluster-size", type=_positive, metavar="N", help="of the concepts to be found (default: by the number of samples)"
    )
    parser.add_argument("--noise", choices=("implicit", "explicit"), default="implicit", help="what the missing mass of a row means")
    parser.add_argument(
        "--cuts", nargs=3, type=float, default=(0.25, 0.5, 0.75), metavar="X",
        help="relative distances up to which concepts are universal, semi-universal, semi-unique (default: 0.25 0.5 0.75)",
    )  # fmt: skip
    parser.add_argument("--pairs", nargs="+", metavar="LA:LB", help="layers to take apart (default: the most alike, and the last)")
    parser.add_argument("--title", metavar="TEXT", help="of the report")


def _add_demo(commands: _Commands) -> None:
    parser = _command(
        commands, "demo", "see it work, without any data",
        "Explore a small shipped network over generated pictures, and check the findings against the truth.",
        "\n--out demo.html", json=True,
    )  # fmt: skip
    parser.add_argument("--out", default="semanticlens-demo.html", metavar="FILE.html", help="the report (default: %(default)s)")
    parser.add_argument("--pictures", type=_positive, default=None, metavar="N", help="generated pictures")
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="of the pictures (default: %(default)s)")
