"""How large the programs of a decoder's lanes are: sizes are rounded up, so that there are few programs.

    texts of a call      1, 4, 16, 32, 64                 at most as many as there are lanes
    tokens that begin    16, 32, 64, 128, 256             of a prompt, at most a chunk, or all of it where it is read as a whole
    tokens read on       64, 256
    columns to write     256, 512, 1024, ...              at most the context, and what a call adds
    columns to read on   1024, 4096, ...
    columns of the room  64, 128, 256, ...                at most the context

A row more costs little among few, where reading the weights is the work, and its share among many. So does attention over more
columns. Tokens of prompts are the work itself, so where they begin they are rounded up least. All sizes can be listed, and
that is what a server compiles before it is asked (`warm_up.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .writer import BURST

CHUNK = 256  # tokens of a prompt that are read in a round
FEWEST = 256  # columns that are written over, where there are so many
_MOST_READ = 1024  # tokens that a call reads, padding included, where it reads more than one text
_ROWS = (1, 4, 16, 32, 64)


@dataclass(frozen=True)
class Ladder:
    """Sizes that grow by a factor from the first one on, up to the most there can be."""

    first: int
    factor: int
    most: int

    def at_least(self, size: int) -> int:
        """The smallest rung that holds so many; the highest where none does."""
        return next((rung for rung in self if rung >= size), self.most)

    def __iter__(self) -> Iterator[int]:
        """All rungs; none lies so near below the highest that it would save little."""
        rung = self.first
        while rung * self.factor <= self.most:
            yield rung
            rung *= self.factor
        yield self.most


@dataclass(frozen=True)
class Ladders:
    """The sizes of the programs of some lanes."""

    lanes: int  # at most
    chunk: int
    context: int  # tokens of a text
    virtual: int = 0  # tokens that adapters put before each

    @property
    def rows(self) -> tuple[int, ...]:
        return (*(rows for rows in _ROWS if rows < self.lanes), self.lanes)

    def begun(self, whole: bool = False) -> Ladder:
        """Tokens of each prompt that begins; `whole`: all of it is read at once."""
        return Ladder(16, 2, self.context if whole else min(self.chunk, self.context))

    @property
    def read_on(self) -> Ladder:
        """Tokens of each prompt that is read on."""
        return Ladder(64, 4, min(self.chunk, self.context))

    @property
    def columns_to_write(self) -> Ladder:
        return Ladder(FEWEST, 2, self.virtual + self.context + BURST)

    @property
    def columns_to_read_on(self) -> Ladder:
        return Ladder(4 * FEWEST, 4, self.virtual + self.context + min(self.chunk, self.context))

    @property
    def room(self) -> Ladder:
        """Columns of all lanes."""
        return Ladder(64, 2, self.virtual + self.context)

    def rows_for(self, texts: int) -> int:
        """The fewest rows that hold so many texts."""
        return next(rows for rows in self.rows if rows >= texts)

    def fits(self, rows: int, length: int) -> bool:
        """Whether one call may read so many tokens of so many texts."""
        return rows == 1 or rows * length <= _MOST_READ

    def of_first(self, lengths: Sequence[int], ladder: Ladder) -> tuple[int, int, int]:
        """How many texts one call reads, the first of some, of which so many tokens are wanted; its rows; its tokens of each.

        Where more than half of the rows would be padding, it reads fewer texts, and fills its rows.
        """
        count, length = 1, ladder.at_least(lengths[0])
        for more, wanted in enumerate(lengths[1 : self.lanes], 2):
            longer = max(length, ladder.at_least(wanted))
            if not self.fits(self.rows_for(more), longer):
                break
            count, length = more, longer
        if 2 * count <= self.rows_for(count):
            count = max(rows for rows in self.rows if rows <= count)
            length = max(map(ladder.at_least, lengths[:count]))
        return count, self.rows_for(count), length
