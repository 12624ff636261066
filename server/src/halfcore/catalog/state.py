"""The catalogue in memory: what was accepted for each model, and the decoders made from it."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec

from halfcore.bundle import Manifest
from halfcore.catalog.entries import CatalogError, Entry, parse, rules_for
from halfcore.catalog.snapshot import Snapshot
from halfcore.log import logger
from halfcore.metrics.counters import CatalogMetrics
from halfcore.models.served import LoadedModel, Models
from halfcore.pipeline.decode import Decoder
from halfcore.pipeline.schema import Rule, Schema


@dataclass(slots=True)
class _Known:
    """What the table says about one model."""

    latest: tuple[Entry, ...] | None = None
    """The entries as last read; None if malformed, or if nothing was read yet."""
    accepted: tuple[Entry, ...] | None = None
    """The last entries that fitted a version of the model."""
    malformed: str | None = None
    refused: str | None = None
    """Why the latest rows are not applied."""


class Catalog:
    """The feature catalogue of one worker; used only on its event loop.

    Args:
        metrics: counts the reads.
        hint: set here when a model is served whose rows were not read yet.
        max_rows: most rows in one request, for the decoders made here.
        last: the last good catalogue of an earlier process.
    """

    def __init__(
        self, metrics: CatalogMetrics, hint: asyncio.Event, *, max_rows: int, last: Snapshot | None
    ) -> None:
        self.metrics = metrics
        self._hint = hint
        self._max_rows = max_rows
        self._known: dict[str, _Known] = {}
        self.read_at: datetime | None = None
        """When the table was last read, in UTC."""
        self._read_after: float | None = None
        """The same of `monotonic`: a corrected clock changes no age. None if an earlier process
        read it."""
        self.from_disk = False
        """Whether the applied entries were read by an earlier process."""
        if last:
            self._known = {name: _Known(accepted=entries) for name, entries in last.models.items()}
            self.read_at, self.from_disk = last.read_at, True
            metrics.read_at = last.read_at.timestamp()

    def refine(self, model: LoadedModel) -> LoadedModel:
        """The model with the latest rows applied if they fit this version, otherwise with the last
        accepted rows if those fit, otherwise with the bundle's own metadata."""
        if model.manifest.name not in self._known:
            self._hint.set()
        known = self._known.setdefault(model.manifest.name, _Known())
        rules, entries, refused = _applied(known, model.manifest)
        if entries is not None:
            known.accepted = entries
        if refused and refused != known.refused:
            logger.error(
                "feature catalogue refused: %s", refused, extra={"model": model.manifest.name}
            )
        known.refused = refused
        self.metrics.refused[model.manifest.name] = int(refused is not None)
        if rules == model.schema.rules:
            return model
        schema = Schema(model.manifest.inputs, model.manifest.dtype, rules, model.manifest.ignored)
        return replace(model, schema=schema, decoder=Decoder(schema, max_rows=self._max_rows))

    def schema_of(self, name: str, manifest: Manifest) -> Schema:
        """The columns that a version will have once it is served under that name."""
        named = msgspec.structs.replace(manifest, name=name)
        rules, _, _ = _applied(self._known.get(name, _Known()), named)
        return Schema(manifest.inputs, manifest.dtype, rules, manifest.ignored)

    def take(self, rows: Iterable[Mapping[str, Any]], models: Models) -> bool:
        """Apply the rows that were read for all served models; return whether anything changed.

        A model whose rows are malformed or contradict it keeps all the rules that it has.
        """
        by_model: dict[str, list[Mapping[str, Any]]] = {model.manifest.name: [] for model in models}
        for row in rows:
            by_model.setdefault(row["model"], []).append(row)
        for name, its_rows in by_model.items():
            known = self._known.setdefault(name, _Known())
            try:
                known.latest, known.malformed = parse(name, its_rows), None
            except CatalogError as error:
                known.latest, known.malformed = None, str(error)
        before = {name: known.accepted for name, known in self._known.items()}
        for model in list(models):
            models.put(model)
        changed = before != {name: known.accepted for name, known in self._known.items()}
        self._count_read(changed=changed)
        return changed

    def snapshot(self) -> Snapshot:
        """What was accepted, to save for a start while PostgreSQL is unreachable."""
        models = {
            name: known.accepted
            for name, known in self._known.items()
            if known.accepted is not None
        }
        return Snapshot(self.read_at or datetime.now(UTC), models)

    def describe(self, name: str) -> dict[str, Any]:
        """What `GET /models/{name}` reports about a model's metadata."""
        known = self._known.get(name, _Known())
        age_s = self._age_s()
        return {
            "connected": self.metrics.connected,
            "read_at": self.read_at,
            "age_s": None if age_s is None else round(age_s, 3),
            "from_disk": self.from_disk,
            "refused": known.refused,
        }

    def _age_s(self) -> float | None:
        """Seconds since the table was read; 0 if by a clock that was corrected since it is in the
        future."""
        if self._read_after is not None:
            return monotonic() - self._read_after
        if self.read_at is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.read_at).total_seconds())

    def _count_read(self, *, changed: bool) -> None:
        self.read_at, self.from_disk = datetime.now(UTC), False
        self._read_after = monotonic()
        self.metrics.read_at = self.read_at.timestamp()
        refused = any(known.refused for known in self._known.values())
        self.metrics.count("refused" if refused else "changed" if changed else "unchanged")


def _applied(
    known: _Known, manifest: Manifest
) -> tuple[dict[str, Rule], tuple[Entry, ...] | None, str | None]:
    """The rules for a version, the entries that they are made from, and why the latest entries are
    not applied, if they are not."""
    refused = known.malformed
    for entries in (known.latest, known.accepted):
        if entries is None:
            continue
        try:
            return (
                rules_for(manifest.name, entries, manifest.inputs, manifest.dtype),
                entries,
                refused,
            )
        except CatalogError as error:
            refused = refused or str(error)
    return {}, None, refused
