"""`graftax.Hub`: adapters under names, kept in a folder or an object store, found by what they fit and how well they do.

    hub = graftax.Hub("s3://team/adapters")           # by default GRAFTAX_HUB, else a folder of this user's
    hub.push("bank/intent", "adapters/bank")          # bank/intent:1
    hub.search(fits=backbone, task="classify")        # what can be used on this very backbone
    graftax.Predictor(backbone).load("bank", "bank/intent")

What a version is called says `store/names.py`; how it is kept, `store/store.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..adapters.located import Located
from ..data.columns import Columns
from ..errors import GraftaxError
from ..models.backbone import Backbone
from ..notes import note
from ..serve.evaluation import Measured
from ..serve.intervals import intervals
from ..store.events import moment
from ..store.manifest import Manifest
from ..store.names import check_name
from ..store.query import Query
from ..store.version import Version
from ..typed import Location, Name, Some, held
from .catalogue import Catalogue
from .describing import files_of, manifest_of, with_card
from .diff import Difference, diff
from .exchange import Format, hand_over, take
from .runs import Under

_LONGEST = timedelta(days=36525)  # for which a version is kept, if not for ever: a century


@dataclass(frozen=True)
class _Settings:
    """How a version is put on a hub, as `Hub.push` takes it."""

    version: int | None
    tags: Sequence[str]
    keep_for: timedelta | None
    sign: str | Path | None


class Hub(Catalogue):
    """The hub at a URL; with the first push it is made where there is none.

    Args:
        url: a folder, or `s3://bucket/prefix`, `gs://...`, `az://...`. Default: GRAFTAX_HUB, else a folder in the user's data
            directory.
        trusted: a file of public keys as in `~/.ssh/authorized_keys`: only what one of them has signed is pulled. Default:
            GRAFTAX_HUB_TRUSTED, else whatever is there.

    Raises:
        GraftaxError: of every verb, where the hub cannot be reached, read or written, in one line that names it.
    """

    @held
    def push(
        self,
        name: Name,
        directory: Location,
        *,
        version: Some | None = None,
        tags: Sequence[str] = (),
        keep_for: timedelta | None = None,
        sign: Location | None = None,
    ) -> Version:
        """Put an adapter's directory on the hub, as the next version of a name; what is its newest already is not put again.

        Args:
            name: such as "bank/intent".
            directory: graftax's, PEFT's or AdapterHub's. A README.md in it is the adapter's card; without one it is written.
            version: its number; default: the next. One that is there is never replaced.
            tags: that are to point to it from now on.
            keep_for: after this time it is gone by itself; default: it stays.
            sign: a private Ed25519 key of OpenSSH's.

        Raises:
            GraftaxError: no sound adapter there; a number that is taken; a name or a tag that cannot be one.
        """
        check_name(name)
        directory = Path(directory)
        described = with_card(manifest_of(directory), files_of(directory), directory, name)
        return self._put(name, *described, _Settings(version, tags, keep_for, sign))

    def _put(self, name: str, manifest: Manifest, contents: Mapping[str, bytes], how: _Settings) -> Version:
        """Files, and what is known of them, as a version."""
        if how.keep_for is not None and not timedelta() < how.keep_for < _LONGEST:
            raise GraftaxError(f"a version is kept for a time above zero and of less than {_LONGEST.days:,} days.")
        version, _ = self.store.push(
            name,
            manifest,
            contents,
            version=how.version,
            tags=how.tags,
            expires=None if how.keep_for is None else moment(datetime.now(UTC) + how.keep_for),
            key_file=None if how.sign is None else Path(how.sign),
        )
        return version

    @held
    def import_(
        self,
        name: Name,
        source: Location,
        *,
        backbone: Backbone | None = None,
        version: Some | None = None,
        tags: Sequence[str] = (),
        keep_for: timedelta | None = None,
        sign: Location | None = None,
    ) -> Version:
        """Put an adapter from elsewhere on the hub, as the next version of a name.

        Args:
            name: such as "bank/intent".
            source: a directory, hf://user/adapter[@revision], oci:PATH[:TAG] of an image layout (a directory or a .tar of
                one), oci://HOST/REPOSITORY:TAG of a registry.
            backbone: one that it is for: it is loaded for it before it is kept, and then known to fit these weights.
                Without it, and where its files do not say, that is not known, and a note says so.
            version: as of `push`, as are the others.
            tags: likewise.
            keep_for: likewise.
            sign: likewise.

        Raises:
            GraftaxError: no sound adapter there, or it does not fit; the place cannot be reached; as of `push`.
        """
        manifest, files = take(source, check_name(name), backbone)
        return self._put(name, manifest, files, _Settings(version, tags, keep_for, sign))

    @held
    def export(
        self,
        reference: Name,
        target: Location,
        *,
        format: Format | None = None,
        backbone: Backbone | None = None,
        overwrite: bool = False,
    ) -> str:
        """Put a version elsewhere, and return where it is now.

        An OCI artefact holds the version as it is: imported again, it has the same digest. In a repository of the Hugging
        Face Hub, a private one where there was none, the adapter's files are replaced in one commit, and its
        card is written or renewed.

        Args:
            reference: as of `pull`.
            target: as `source` of `import_`. An OCI artefact without a tag has the version's number as its tag.
            format: whose files: "graftax", "peft" or "adapters" (AdapterHub's); "oci": an artefact, into the layout at
                `target`. Default: the version's own files.
            backbone: its own, where files must be written anew: as AdapterHub's, or of AdapterHub's.
            overwrite: replace what is there under this very name: a directory, an archive, a tag.

        Raises:
            GraftaxError: no such version; files of that format cannot be written of it; the target is taken or away.
        """
        version = self.store.resolve(reference)
        return hand_over(self.store, version, target, format=format, backbone=backbone, overwrite=overwrite)

    @held
    def push_run(
        self, prefix: str, directory: Location, *, tags: Sequence[str] = (), sign: Location | None = None
    ) -> Sequence[Version]:
        """Put every adapter of a run on the hub: `directory/NAME` as `prefix/NAME` (without a prefix as `NAME`).

        One that cannot be pushed holds up no other: a note says why, and an error at the end names them all.
        """
        return list(self.under(prefix, tags=tags, sign=sign).push_each(Path(directory)))

    @held
    def under(self, prefix: str, *, tags: Sequence[str] = (), sign: Location | None = None) -> Under:
        """Names here that begin with a prefix, for `train_many(push=...)`: each adapter is `prefix/NAME` as it finishes."""
        return Under(self, prefix.removesuffix("/"), tags, sign)

    @held
    def search(
        self,
        text: str | None = None,
        *,
        fits: Backbone | str | None = None,
        backbone: str | None = None,
        task: str | None = None,
        method: str | None = None,
        label: str | None = None,
        metric: str | None = None,
        all_versions: bool = False,
        limit: Some = 50,
    ) -> Sequence[Version]:
        """The adapters of which all that is said is true, the last pushed first.

        Args:
            text: words that stand in name, labels, description, method, task or backbone, or begin a word there.
            fits: a backbone, or its fingerprint (or how that begins): its weights are those that the adapter was made for.
            backbone: words of the backbone's name.
            task: its name, exactly.
            method: likewise.
            label: one of its labels, whole; case does not matter.
            metric: a bound on a metric of its training or of an evaluation that was kept, such as "val_accuracy>=0.9".
            all_versions: else of each name the version that it means now.
            limit: how many at most.
        """
        fingerprint = fits.fingerprint if isinstance(fits, Backbone) else fits
        query = Query(text, fingerprint, backbone, task, method, label, metric, all_versions)
        return self.find(query, limit=limit)

    @held
    def record(self, version: Version, measured: Measured) -> None:
        """Keep how a version did on rows that it was measured on, with intervals, for the leaderboard of its task.

        Raises GraftaxError where it is not said which rows these were, or for what the adapter was trained.
        """
        data = measured.data
        if data.sha256 is None or data.rows is None or version.task is None:
            raise GraftaxError(f"{version}: kept are the metrics of known rows and a known task.")
        if self.store.manifest(version).data.sha256 == data.sha256:
            note(f"{version} was trained on these rows: its metrics say how well it knows them by heart.")
        found = intervals(measured, version.task)
        self.store.add_evaluation(version, version.task, data.sha256, data.rows, found, data.name)

    @held
    def diff(
        self,
        left: Location,
        right: Location,
        *,
        backbone: Backbone | None = None,
        data: Any = None,
        columns: Columns = Columns(),
    ) -> Difference:
        """How two adapters differ, versions of this hub or directories: in settings, in weights, and in answers to rows.

        Args:
            left: a reference, or a directory.
            right: likewise.
            backbone: what both are for; without it the change of the weights is known of LoRA and AdaLoRA alone.
            data: rows, which both are asked about on the backbone; with labels it is said which is right more often.
            columns: of these rows.
        """
        return diff(self._located(left), self._located(right), backbone=backbone, data=data, columns=columns)

    def _located(self, location: str | Path) -> Located:
        """A directory, or a version of this hub."""
        if isinstance(location, Path) or Path(location).exists():
            return Located(Path(location), str(location))
        version = self._one(location)
        return Located(self.store.pull(version), str(version))
