"""What the jobs and loops of a key may cost, in the words of the file of keys: `training_seconds=3600 training_jobs=4`.

Seconds, steps and tokens are counted in all jobs and loops that the key has had, for as long as the training folder is kept:
whoever is to have more is given a larger number. A job that is to begin when they are used up is refused; one during which they
are used up fails, and keeps the adapters of its epochs. A loop then gets no further gradients or steps, and can be saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...serve.http.complaints import Refused
from ...serve.http.keys import Key
from ...serve.http.quotas import TrainingQuota
from ..training_cost import Cost
from .job_record import JobRecord
from .job_table import JobTable

_OPEN = TrainingQuota()
_NOT_AGAIN = {"x-should-retry": "false"}  # OpenAI's clients would ask once more at once, in vain


class TrainingQuotas:
    """The quotas of a server's keys. Calls may come from several threads."""

    def __init__(self, keys: Sequence[Key], table: JobTable):
        self._quotas = {key.hash.hex(): key.training for key in keys}
        self._table = table

    def refuse_new(self, tenant: str | None, priority: int) -> None:
        """Refused where a tenant may have no further job of a priority; without keys everybody may."""
        quota = self._quotas.get(tenant or "")
        if quota is None:
            return
        if priority > quota.training_priority:
            said = f"graftax: priority {priority} is more than this key's, which is {quota.training_priority}."
            raise Refused(403, said, param="graftax", code="insufficient_permissions")
        under_way = sum(job.tenant == tenant for job in self._table.not_over())
        if quota.training_jobs is not None and under_way >= quota.training_jobs:
            said = f"this key may have {quota.training_jobs} jobs that have not ended (training_jobs), and has {under_way}."
            raise Refused(429, said, code="rate_limit_exceeded", headers=_NOT_AGAIN)
        if (used_up := _used_up(quota, self._table.spent(tenant))) is not None:
            raise Refused(429, used_up, kind="insufficient_quota", code="insufficient_quota", headers=_NOT_AGAIN)

    def refusal(self, job: JobRecord, cost: Cost) -> str | None:
        """Why a job that has cost so much by now may not go on; None: it may."""
        return self._refusal(job.tenant, cost, but=job.id)

    def refusal_of_loops(self, tenant: str | None, cost: Cost) -> str | None:
        """Why a tenant's loops may not go on that have cost so much beyond what the table says; None: they may."""
        return self._refusal(tenant, cost)

    def _refusal(self, tenant: str | None, cost: Cost, but: str = "") -> str | None:
        quota = self._quotas.get(tenant or "", _OPEN)
        if quota.training_seconds is quota.training_steps is quota.training_tokens is None:
            return None
        return _used_up(quota, self._table.spent(tenant, but) + cost)


def _used_up(quota: TrainingQuota, spent: Cost) -> str | None:
    """Which part of a quota is used up, in words."""
    for unit in ("seconds", "steps", "tokens"):
        most, had = getattr(quota, f"training_{unit}"), getattr(spent, unit)
        if most is not None and had >= most:
            return f"this key may have {most:,} {unit} of training in all (training_{unit}), and has had {had:,.0f}."
    return None
