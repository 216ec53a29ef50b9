"""How a server trains. The fields are options of the command line, so this file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_doc import Doc

from ..typed import Positive, Size, Some, Within, settle


@dataclass(frozen=True)
class TrainingSettings:
    """What training may take beside the serving, and what it takes upon itself."""

    training_share: Annotated[
        float,
        Within(above=0.0, below=1.0),
        Doc("Of the device's time what jobs have while requests wait for it; where none waits they have all."),
    ] = 0.5
    training_slots: Annotated[Size, Doc("Adapters that jobs train at once.")] = 8
    save_every: Annotated[Positive, Doc("Seconds between two saves of a job's state, from which it goes on after a kill.")] = (
        60.0
    )
    max_upload: Annotated[Some, Doc("Bytes of a file of rows; more is answered with 413.")] = 512 << 20
    max_uploads: Annotated[
        int,
        Within(1, below=1 << 50),
        Doc("Bytes of all files of a key, or without keys of all there are; more is answered with 413."),
    ] = 10 << 30
    training_watts: Annotated[
        Positive | None, Doc("Power of the machine while it trains, by which the energy of jobs is estimated.")
    ] = None
    training_push: Annotated[
        str | None,
        Doc("Push what jobs have made to the hub, as PREFIX/NAME: then whoever may read the hub may have it."),
    ] = None

    def __post_init__(self) -> None:
        settle(self)
