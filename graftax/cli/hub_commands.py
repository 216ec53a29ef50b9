"""`graftax hub`: adapters put on a hub, found there, compared and taken from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..counted import counted
from ..errors import GraftaxError
from .arguments import columns_of
from .dataclass_options import options_from_fields
from .options import ColumnOption, ColumnsOptions
from .output import print_json, print_page, print_table

if TYPE_CHECKING:
    from ..models.backbone import Backbone
    from ..store.version import Version

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep adapters under names, find those that fit a backbone, and use them by name everywhere.",
)

HubOption = Annotated[
    Optional[str],
    typer.Option(
        "--hub", metavar="URL", help="A folder; s3://, gs://, az://, hf://. Default: $GRAFTAX_HUB, else a folder of your own."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object in a line.")]
Reference = Annotated[str, typer.Argument(metavar="NAME", help="NAME, NAME:3, NAME:TAG, NAME@sha256:... or sha256:...")]
VersionOption = Annotated[Optional[int], typer.Option(help="Its number. Default: the next.")]
TagsOption = Annotated[Optional[list[str]], typer.Option("--tag", help="A tag that is to point to it; once for each.")]
KeepForOption = Annotated[
    Optional[str], typer.Option(metavar="TIME", help="Gone by itself after 30m, 12h, 7d or 2w. Default: it stays.")
]
SignOption = Annotated[Optional[Path], typer.Option(metavar="KEY", help="Private Ed25519 key of OpenSSH's.")]
_TIME = re.compile(r"(?P<count>[0-9]+)(?P<unit>[mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class ExportFormat(StrEnum):
    graftax = "graftax"
    peft = "peft"
    adapters = "adapters"
    oci = "oci"


@app.command()
def push(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as bank/intent; of a run what goes before their names.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An adapter's directory, or a run's: each of its adapters.")],
    version: VersionOption = None,
    tag: TagsOption = None,
    keep_for: KeepForOption = None,
    sign: SignOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an adapter on the hub, as the next version of its name.

    graftax hub push bank/intent adapters/bank --tag prod
    """
    from ..hub.hub import Hub
    from ..hub.runs import is_run

    there, tags, kept = Hub(hub), tuple(tag or ()), _kept(keep_for)
    if not is_run(directory):
        _print_pushed(there.push(name, directory, version=version, tags=tags, keep_for=kept, sign=sign), as_json)
    elif version is not None or kept is not None:
        raise GraftaxError(f"{directory} holds several adapters; --version and --keep-for are for one.")
    else:
        for pushed in there.under(name, tags=tags, sign=sign).push_each(directory):
            _print_pushed(pushed, as_json)


def _print_pushed(version: Version, as_json: bool) -> None:
    if as_json:
        print_json(_told(version))
    else:
        print(f"{version}  sha256:{version.digest[:12]}  {_size(version.size)}", flush=True)


@app.command()
def pull(
    name: Reference,
    directory: Annotated[Optional[Path], typer.Argument(metavar="DIR", help="To be made. Default: NAME's last part.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the adapter that is there.")] = False,
    hub: HubOption = None,
    trusted: Annotated[Optional[Path], typer.Option(metavar="KEYS", help="Only what one of these public keys signed.")] = None,
) -> None:
    """Take an adapter from the hub, as a directory."""
    from ..hub.catalogue import Catalogue

    store = Catalogue(hub, trusted=trusted).store
    version = store.resolve(name)
    print(store.pull(version, directory or Path(version.name.rpartition("/")[2]), overwrite=overwrite))


@app.command(name="import")
def import_adapter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as bank/intent.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help=r"DIR, hf://user/adapter\[@revision], oci:PATH[:TAG], oci://HOST/REPOSITORY:TAG."
        ),
    ],
    backbone: Annotated[
        Optional[str],
        typer.Option("--backbone", "-b", help="It is loaded for this one first, and known to fit it from then on."),
    ] = None,
    version: VersionOption = None,
    tag: TagsOption = None,
    keep_for: KeepForOption = None,
    sign: SignOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an adapter from elsewhere on the hub: of PEFT, AdapterHub, the Hugging Face Hub, an OCI artefact.

    graftax hub import bank/intent hf://user/adapter --backbone sentence-transformers/all-MiniLM-L6-v2
    """
    from ..hub.hub import Hub

    loaded, time = None if backbone is None else _backbone(backbone), _kept(keep_for)
    there = Hub(hub).import_(name, source, backbone=loaded, version=version, tags=tag or (), keep_for=time, sign=sign)
    _print_versions([there], as_json)


@app.command()
def export(
    name: Reference,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="DIR, hf://user/adapter, oci:PATH[:TAG], oci://HOST/REPOSITORY[:TAG].")
    ],
    format: Annotated[
        Optional[ExportFormat], typer.Option(help="Whose files. Default: the version's own. oci: an artefact, also in DIR.")
    ] = None,
    backbone: Annotated[
        Optional[str], typer.Option("--backbone", "-b", help="Its own, where files of AdapterHub's are written or read.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is there under this name.")] = False,
    hub: HubOption = None,
) -> None:
    """Put a version elsewhere: into a directory, on the Hugging Face Hub, into an OCI artefact.

    graftax hub export bank/intent:3 oci:adapters.tar:v3
    """
    from ..hub.hub import Hub

    there, loaded = Hub(hub), None if backbone is None else _backbone(backbone)
    print(there.export(name, target, format=None if format is None else format.value, backbone=loaded, overwrite=overwrite))


@app.command(name="list")
def list_names(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="How the names begin. Default: all.")] = "",
    limit: Annotated[int, typer.Option(help="How many at most.")] = 1000,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the names on the hub, and what each means now."""
    from ..hub.catalogue import Catalogue

    _print_versions(Catalogue(hub).list(prefix, limit=limit), as_json, limit)


@app.command()
def search(
    text: Annotated[Optional[list[str]], typer.Argument(metavar="WORDS", help="In name, labels, description, ...")] = None,
    fits: Annotated[
        Optional[str],
        typer.Option(metavar="BACKBONE", help="Made for its very weights: directory, Hub id, fingerprint."),
    ] = None,
    backbone: Annotated[Optional[str], typer.Option(help="Words of the backbone's name.")] = None,
    task: Annotated[Optional[str], typer.Option(help="classify, tag, lm, ...")] = None,
    method: Annotated[Optional[str], typer.Option(help="lora, bottleneck, ...")] = None,
    label: Annotated[Optional[str], typer.Option(help="One of its labels.")] = None,
    metric: Annotated[Optional[str], typer.Option(help="A bound, such as 'val_accuracy>=0.9'.")] = None,
    all_versions: Annotated[bool, typer.Option("--all-versions", help="Not only what each name means now.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 50,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find adapters, the last pushed first.

    graftax hub search --fits sentence-transformers/all-MiniLM-L6-v2 --label card_arrival
    """
    from ..hub.catalogue import Catalogue
    from ..store.query import Query

    fingerprint, words = None if fits is None else _fingerprint(fits), " ".join(text) if text else None
    query = Query(words, fingerprint, backbone, task, method, label, metric, all_versions)
    _print_versions(Catalogue(hub).find(query, limit=limit), as_json, limit)


@app.command()
def show(name: Reference, hub: HubOption = None, as_json: JsonOption = False) -> None:
    """Show what a version is, what it fits, how it did and where it comes from."""
    from ..hub.catalogue import Catalogue
    from ..hub.provenance import provenance

    there = Catalogue(hub)
    if as_json:
        version = there.resolve(name)
        print_json(_told(version) | {"provenance": provenance(there.store, version)})
    else:
        print_page(there.show(name))


@app.command()
def tag(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as bank/intent.")],
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Such as prod.")],
    versions: Annotated[
        Optional[list[str]], typer.Argument(metavar="VERSION[=SHARE]", help="3; or 3=90 4=10, to share what comes.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
    hub: HubOption = None,
) -> None:
    """Let a tag point to a version, or share its traffic between several.

    graftax hub tag bank/intent prod 3=90 4=10
    """
    from ..hub.catalogue import Catalogue

    if bool(versions) == remove:
        raise GraftaxError("give the version that the tag is to point to, or --remove.")
    shares = _shares(versions or [])
    Catalogue(hub).tag(name, tag, shares or None)
    whole = sum(shares.values())
    print(f"{name}:{tag} -> {', '.join(f'{one} ({share / whole:.0%})' for one, share in shares.items()) or 'removed'}")


@app.command()
def yank(
    name: Reference,
    reason: Annotated[Optional[str], typer.Option(help="Why, for who meets it.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    hub: HubOption = None,
) -> None:
    """Withdraw a version: its digest still leads to it, its number with a warning, its name alone to others."""
    from ..hub.catalogue import Catalogue

    if undo == (reason is not None):
        raise GraftaxError("give --reason, or --undo.")
    print(f"{Catalogue(hub).yank(name, reason)}: {'there again' if undo else 'withdrawn'}")


@app.command()
def verify(
    name: Annotated[Optional[str], typer.Argument(metavar="NAME", help="Default: all that is on the hub.")] = None,
    hub: HubOption = None,
    trusted: Annotated[Optional[Path], typer.Option(metavar="KEYS", help="Each must be signed with one of these.")] = None,
) -> None:
    """Read everything, and compare it with its digests and signatures. Exit code 1 where something is wrong."""
    from ..hub.catalogue import Catalogue

    damages = Catalogue(hub, trusted=trusted).verify(name)
    for damage in damages:
        print(f"{damage.version}: {damage.problem}")
    if damages:
        raise typer.Exit(1)
    print("everything is as its digests say")


@app.command(name="diff")
@options_from_fields
def show_difference(
    context: typer.Context,
    left: Annotated[str, typer.Argument(metavar="NAME", help="An adapter on the hub, or a directory.")],
    right: Annotated[str, typer.Argument(metavar="OTHER", help="Another one.")],
    *,
    backbone: Annotated[
        Optional[str], typer.Option("--backbone", "-b", help="What both are for: the change of the weights by any method.")
    ] = None,
    data: Annotated[Optional[Path], typer.Option("--data", "-d", help="Rows that both answer (with --backbone).")] = None,
    most: Annotated[int, typer.Option(min=0, help="How many modules are listed, those that differ most.")] = 10,
    columns: ColumnsOptions,
    column: ColumnOption = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how two adapters differ: in settings, in weights by module, with --data in their answers.

    graftax hub diff bank/intent:3 bank/intent:4 -b BACKBONE -d rows.csv
    """
    from ..hub.diff import diff_record
    from ..hub.diff_page import diff_page
    from ..hub.hub import Hub

    read, loaded = columns_of(context, columns, column), None if backbone is None else _backbone(backbone)
    found = Hub(hub).diff(left, right, backbone=loaded, data=data, columns=read)
    if as_json:
        print_json(diff_record(found))
    else:
        print_page(diff_page(found, most))


@app.command(name="leaderboard")
def show_leaderboard(
    task: Annotated[str, typer.Argument(metavar="TASK", help="classify, tag, lm, ...")],
    metric: Annotated[Optional[str], typer.Option(help="Default: the task's main one.")] = None,
    data: Annotated[
        Optional[str], typer.Option(metavar="ROWS", help="Name or sha256. Default: what most versions were measured on.")
    ] = None,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank what was measured on the same rows (`graftax eval --record`), with 95% intervals."""
    from ..hub.catalogue import Catalogue
    from ..hub.leaderboard import leaderboard_page, leaderboard_record

    board = Catalogue(hub).leaderboard(task, metric=metric, data=data)
    if as_json:
        print_json(leaderboard_record(board))
    else:
        print_page(leaderboard_page(board))


@app.command()
def rm(
    name: Reference,
    force: Annotated[bool, typer.Option(help="Even what a tag points to, or others were made from.")] = False,
    hub: HubOption = None,
) -> None:
    """Remove a version, or with a name alone all of them; `gc` then frees the space."""
    from ..hub.catalogue import Catalogue

    for version in Catalogue(hub).remove(name, force=force):
        print(f"{version} removed")


@app.command()
def gc(
    unused_for: Annotated[
        str, typer.Option(metavar="TIME", help="Of this machine's copies, delete what nobody asked for in 30m, 12h, 7d or 2w.")
    ] = "30d",
    hub: HubOption = None,
) -> None:
    """Delete what no version of the hub refers to any more, and this machine's copies of what is no longer used here."""
    from ..hub.catalogue import Catalogue

    there, time = Catalogue(hub), _time(unused_for, "--unused-for")
    garbage, forgotten = there.collect(), there.forget(time)
    print(f"{counted(garbage.blobs, 'file')} deleted, {_size(garbage.bytes)}")
    unused = f"not used for {unused_for}, {_size(forgotten.bytes)}"
    print(f"copies on this machine: {counted(forgotten.versions, 'version')} deleted, {unused}")


def _print_versions(versions: Sequence[Version], as_json: bool, limit: int = 0) -> None:
    """Versions as a table, or as JSON lines; and whether there may be more of them."""
    import sys

    if as_json:
        for one in versions:
            print_json(_told(one))
    elif versions:
        lines = [
            (str(one), one.task or "", "+".join(one.methods), one.backbone or "", _best(one), one.pushed) for one in versions
        ]
        print_table(("version", "task", "method", "backbone", "validation", "pushed"), lines, moments="pushed")
    if not versions:
        print("graftax: none", file=sys.stderr)
    elif len(versions) == limit:
        print(f"graftax: the first {limit}; --limit shows more", file=sys.stderr)


def _told(version: Version) -> dict[str, Any]:
    """A version as JSON."""
    return {"reference": str(version), **asdict(version), "digest": f"sha256:{version.digest}"}


def _best(version: Version) -> str:
    """The main metric of its task, as its training ended."""
    from ..tasks.main_metrics import main_metric_of

    try:
        main = f"val_{main_metric_of(version.task).name}" if version.task else ""
    except GraftaxError:  # of a package that is not installed here
        main = ""
    return f"{main} {version.metrics[main]:.3f}" if main in version.metrics else ""


def _fingerprint(text: str) -> str:
    """What tells a backbone from others: as it is given, or of a directory or Hub id."""
    if re.fullmatch(r"[0-9a-f]{8,64}", text) and not Path(text).exists():
        return text
    return _backbone(text).fingerprint


def _backbone(text: str) -> Backbone:
    from ..models.load import load_backbone

    return load_backbone(text)


def _shares(texts: Sequence[str]) -> dict[int, float]:
    """Shares by version, of `3` or `3=90`."""
    shares: dict[int, float] = {}
    for text in texts:
        version, equals, share = text.partition("=")
        try:
            number, part = int(version), float(share) if equals else 1.0
        except ValueError:
            raise GraftaxError(f"{text!r}: expected a version, or VERSION=SHARE as in 3=90.") from None
        if number in shares or not 0 < part < float("inf"):
            raise GraftaxError(f"{text!r}: each version once, with a share above zero.")
        shares[number] = part
    return shares


def _kept(text: str | None) -> timedelta | None:
    """How long a version is kept; None: for ever."""
    return None if text is None else _time(text, "--keep-for")


def _time(text: str, option: str) -> timedelta:
    if not (match := _TIME.fullmatch(text)):
        raise GraftaxError(f"{option} {text!r}: expected a number and m, h, d or w, as in 7d.")
    try:
        return timedelta(**{_UNITS[match["unit"]]: int(match["count"])})
    except OverflowError:
        raise GraftaxError(f"{option} {text!r}: longer than there is time.") from None


def _size(count: int) -> str:
    """Bytes, for people."""
    size, units = float(count), ["B", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"
